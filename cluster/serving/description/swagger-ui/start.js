// Shows the description that the page names. A token typed into the page is forgotten when the page is closed.
"use strict";
SwaggerUIBundle({
  url: document.getElementById("api").dataset.document,
  dom_id: "#api",
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  defaultModelExpandDepth: 3,
  persistAuthorization: false,
  displayRequestDuration: true,
  syntaxHighlight: { activated: false },
  validatorUrl: null,
});
