"""The page that shows the API's description to people: Swagger UI, from this server and nowhere else."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Final

from starlette.responses import FileResponse

ASSETS: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "start.js": "text/javascript",
}
"""The files that the page loads, and their media types."""

POLICY: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
"""Scripts come from this server alone: a token that is typed into the page stays in its memory."""

_FOLDER: Final = Path(__file__).parent / "swagger-ui"


def page(title: str) -> str:
    """Return the page. Its addresses are relative, because the API may be behind a prefix."""
    name = html.escape(title)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}: API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
<script src="docs/swagger-ui-bundle.js" defer></script>
<script src="docs/start.js" defer></script>
</head>
<body>
<main id="api" data-document="openapi.json"></main>
<noscript>This page needs JavaScript. For programs there is <a href="openapi.json">openapi.json</a>.</noscript>
</body>
</html>
"""


def asset(name: str) -> FileResponse:
    """Return one of ``ASSETS``."""
    return FileResponse(_FOLDER / name, media_type=ASSETS[name])
