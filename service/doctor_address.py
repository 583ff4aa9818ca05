"""What `doctor` makes of what the receiver's public address answers. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

import msgspec

from service.doctor import Finding, State

ADDRESS = "public address"
_SUCCESSES = range(200, 300)
_REDIRECTS = range(300, 400)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What was answered to a delivery of our own, or why nobody did.

    Attributes:
        status: the HTTP status; None where there was no answer.
        body: the start of its body.
        failure: why there was no answer; "" where there was one.
        untrusted: there was none because the certificate was not trusted.
    """

    status: int | None = None
    body: bytes = b""
    failure: str = ""
    untrusted: bool = False

    @property
    def ours(self) -> bool:
        """Whether the receiver wrote it: a JSON object that says a status or an error."""
        try:
            decoded = msgspec.json.decode(self.body)
        except (ValueError, RecursionError):
            return False
        return isinstance(decoded, dict) and not {"status", "error"}.isdisjoint(decoded)


def address_findings(genuine: Answered | None, forged: Answered, *, address: str) -> list[Finding]:
    """Whether deliveries reach the receiver, and only genuine ones are taken.

    Args:
        genuine: the answer to a signed event that leads to nothing; None where no key is known to sign with.
        forged: the answer to the same event with a wrong signature.
        address: where both were sent.
    """
    answer = forged if genuine is None else genuine
    wrong = _wrong_with(answer, forged=genuine is None)
    if wrong is not None:
        state, words, fix = wrong
        return [Finding(check=ADDRESS, state=state, finding=f"{address} {words}", fix=fix)]
    reached = Finding(check=ADDRESS, state=State.OK, finding=f"{address} reaches close-enrich web")
    return [reached, _signature(genuine, forged)]


def _signature(genuine: Answered | None, forged: Answered) -> Finding:
    """Whether web tells a genuine delivery from a forged one; `genuine` was taken if there is one."""
    check = "signature"
    if forged.status != HTTPStatus.UNAUTHORIZED and genuine is not None:
        said = forged.failure or f"answered {forged.status}"
        return Finding(
            check=check,
            state=State.PROBLEM,
            finding=f"a delivery with a wrong signature was not refused with 401: {said}",
            fix="see what stands between Close and close-enrich web: it answers by itself",
        )
    if genuine is None:
        return Finding(
            check=check,
            state=State.NOT_CHECKED,
            finding="no signature key is known to try a genuine delivery with",
        )
    return Finding(
        check=check, state=State.OK, finding="a genuine delivery is taken, one with a wrong signature refused"
    )


def _wrong_with(answer: Answered, *, forged: bool) -> tuple[State, str, str] | None:
    """Why the answer is not the receiver's, or not the one expected; None where it is."""
    status = answer.status
    if status is None:
        return _unreached(answer)
    refused = answer.ours and status == HTTPStatus.UNAUTHORIZED
    if (refused and forged) or (answer.ours and status in _SUCCESSES and not forged):
        return None
    candidates = (
        (
            status in _REDIRECTS,
            f"redirects ({status})",
            "set PUBLIC_URL to where it leads: Close may not follow",
        ),
        (
            refused,
            "refuses a signature made with a key that is known here",
            "give web this REDIS_URL and these CLOSE_SIGNATURE_KEYS; see SIGNATURE_MAX_AGE and the clock",
        ),
        (
            answer.ours and status == HTTPStatus.SERVICE_UNAVAILABLE,
            "takes no deliveries now (503)",
            "/readyz says what is missing",
        ),
        (
            True,
            f"answers {status}, and not as close-enrich web does",
            "have PUBLIC_URL, path included, lead to close-enrich web",
        ),
    )
    return next((State.PROBLEM, words, fix) for so, words, fix in candidates if so)


def _unreached(answer: Answered) -> tuple[State, str, str]:
    if answer.untrusted:
        return (
            State.PROBLEM,
            f"has a certificate that is not trusted here: {answer.failure}",
            "Close verifies it, too: serve a valid certificate for this name, with its whole chain",
        )
    return (
        State.WARNING,
        f"cannot be reached from here: {answer.failure}",
        "Close may reach it all the same: see what the subscription says of its deliveries",
    )
