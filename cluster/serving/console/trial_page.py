"""Try it: a form with the declared features, and the answer with the ensemble that gave it."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Request
from starlette.responses import Response

from cluster.serving.bodies import JSON
from cluster.serving.console.pages import Page, Pages
from cluster.serving.console.sign_in import SignedIn
from cluster.serving.http_errors import HttpProblem, Refused, problem_of
from cluster.tokens import Role
from shards.encoders import (
    CategoryEncoder,
    DateEncoder,
    Encoder,
    ImageEncoder,
    NumberEncoder,
    TokensEncoder,
    TruthEncoder,
    WordsEncoder,
)
from shards.specification import DataSettings
from storage.errors import Invalid, SisaError

MOST_FIELDS: Final = 64
"""Up to this many features have a field each; more are entered as one list."""

_ROLES: Final[tuple[Role, ...]] = ("predict", "officer")

Predicts = Callable[[Request, bytes, str, str], Awaitable[Response]]
"""Answers a body of predictions; see ``POST /v1/predictions``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entered:
    """One field of the form."""

    name: str
    """The field's own name, which does not depend on the feature's."""
    feature: str
    kind: str
    """``number``, ``text``, ``long`` or ``choice``."""
    choices: tuple[str, ...] = ()
    hint: str = ""
    may_be_empty: bool = False

    def value(self, text: str) -> float | str | None:
        """Return the value of the feature's cell. Raises ``Invalid`` for a text where a number is needed."""
        if not text and (self.may_be_empty or self.kind == "number"):
            return None
        if self.kind != "number":
            return text
        value = _number(text)
        if value is None:
            raise Invalid(f"{self.feature}: this is not a number", "Enter digits, with a point for decimals.")
        return value


class TrialPage:
    """The page for those who want to see an answer."""

    def __init__(self, pages: Pages, data: Callable[[], DataSettings], predicts: Predicts) -> None:
        """``data`` returns the declared features, with their names as found at ingest; it may wait for the store."""
        self._pages = pages
        self._data = data
        self._predicts = predicts

    @property
    def routes(self) -> tuple[Page, ...]:
        """Its routes."""
        return (
            Page(path="/try", act=self.asked, roles=_ROLES),
            Page(path="/try", act=self.answered, roles=_ROLES, method="POST"),
        )

    async def asked(self, request: Request, signed_in: SignedIn) -> Response:
        """Show the form."""
        return await self._shown(request, signed_in, {})

    async def answered(self, request: Request, signed_in: SignedIn) -> Response:
        """Show the submitted form, with the answer or with the problem."""
        given = await self._pages.form(request, signed_in)
        data = await self._pages.call(self._data)
        try:
            payload = json.dumps({"points": [{"features": _features(data, given)}]}).encode()
            body = json.loads(bytes((await self._predicts(request, payload, JSON, JSON)).body))
        except Refused as refused:
            return await self._shown(request, signed_in, given, problem=refused.problem)
        except SisaError as error:
            return await self._shown(request, signed_in, given, problem=problem_of(error))
        return await self._shown(request, signed_in, given, answer=_answer(body))

    async def _shown(
        self,
        request: Request,
        signed_in: SignedIn,
        given: Mapping[str, str],
        *,
        problem: HttpProblem | None = None,
        answer: Mapping[str, Any] | None = None,
    ) -> Response:
        data = await self._pages.call(self._data)
        return self._pages.rendered(
            request,
            signed_in,
            "trial.html.jinja",
            problem.status if problem else 200,
            fields=entered(data),
            features=data.features,
            given=given,
            problem=problem,
            answer=answer,
        )


def entered(data: DataSettings) -> tuple[Entered, ...]:
    """Return the fields of the form; empty if the features are entered as one list."""
    if len(data.features) > MOST_FIELDS or (len(data.features) == 1 and not data.encode):
        return ()
    return tuple(_entered(f"f{place}", name, data.encoders.of(name)) for place, name in enumerate(data.features))


def _entered(name: str, feature: str, encoder: Encoder | None) -> Entered:
    missing = getattr(encoder, "missing", None)  # 0.0 is a feature, where False means that none is taken
    is_open = missing is not None and missing is not False
    match encoder:
        case CategoryEncoder() if not encoder.other:
            return Entered(name=name, feature=feature, kind="choice", choices=encoder.categories, may_be_empty=is_open)
        case CategoryEncoder():
            known = ", ".join(encoder.categories)
            return Entered(name=name, feature=feature, kind="text", hint=f"{known}, or another", may_be_empty=True)
        case TruthEncoder():
            both = (*encoder.true, *encoder.false)
            return Entered(name=name, feature=feature, kind="choice", choices=both, may_be_empty=is_open)
        case DateEncoder():
            hint = f"a date: {encoder.format or 'such as 2026-11-30'}"
            return Entered(name=name, feature=feature, kind="text", hint=hint, may_be_empty=is_open)
        case WordsEncoder() | TokensEncoder():
            return Entered(name=name, feature=feature, kind="long", may_be_empty=is_open)
        case ImageEncoder():
            height, width = encoder.image[1:]
            return Entered(name=name, feature=feature, kind="long", hint=f"base64 of an image, {height} × {width}")
        case None:
            return Entered(name=name, feature=feature, kind="number")
        case NumberEncoder():
            kind = "text" if encoder.wants_text else "number"
            return Entered(name=name, feature=feature, kind=kind, may_be_empty=is_open)
        case _:
            return Entered(name=name, feature=feature, kind="text", may_be_empty=is_open)


def _features(data: DataSettings, given: Mapping[str, str]) -> dict[str, Any] | list[float]:
    fields = entered(data)
    if fields:
        return {each.feature: each.value(given.get(each.name, "").strip()) for each in fields}
    values = [_number(text) for text in given.get("list", "").replace(",", " ").replace(";", " ").split()]
    if None in values:
        raise Invalid("the list holds something that is not a number", "Separate numbers by spaces or commas.")
    return [value for value in values if value is not None]


def _number(text: str) -> float | None:
    """Return the finite number in the text; None: it is not a finite number."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _answer(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return an answer's body in the parts that the page shows."""
    (line,) = body["predictions"]
    shares = line.get("probabilities", {})
    if isinstance(shares, list):
        shares = dict(zip(body["classes"], shares, strict=True))
    shown = {"id", "prediction", "probabilities", "labels"}
    return {
        "prediction": line.get("prediction"),
        "labels": line.get("labels"),
        "shares": shares,
        "others": {name: value for name, value in line.items() if name not in shown},
        "generation": body.get("generation"),
        "constituents": body.get("constituents"),
        "shards": body.get("shards"),
        "guarantee": body.get("guarantee"),
        "sites": body.get("sites", ()),
        "absent": body.get("absent", {}),
    }
