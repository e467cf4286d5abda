"use strict";
// Pages work without this file. It adds what HTML alone cannot do.

// A form is sent once: a second click while the first answer is on its way would send it again.
document.addEventListener("submit", (event) => {
  if (event.defaultPrevented) return;
  for (const button of event.target.querySelectorAll("button:not([type=button])")) {
    setTimeout(() => { button.disabled = true; });
  }
});

// A page that the browser shows again from memory shows forms that can be sent, and nothing of somebody who signed out.
window.addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});

// Buttons that print the page, such as a letter's.
for (const button of document.querySelectorAll("[data-print]")) {
  button.hidden = false;
  button.addEventListener("click", () => print());
}
