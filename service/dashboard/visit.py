"""One request of somebody who may see the dashboard, and the answers that handlers give."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.responses import HTMLResponse, RedirectResponse, Response

from service import keys
from service.dashboard.access import cookie_header
from service.dashboard.headers import PRIVATE
from service.dashboard.reading import read_attention
from service.redis_text import text

if TYPE_CHECKING:
    from starlette.requests import Request

    from service.dashboard.access import Visitor
    from service.dashboard.desk import Desk
    from service.dashboard.rendering import Look

NOTICE_SECONDS = 60
MOST_NOTICE = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """See the module.

    Attributes:
        request: as Starlette has it.
        visitor: who it is.
        desk: what handlers work with.
        look: the templates.
        signs_out: whether there is a session that a person can end.
    """

    request: Request
    visitor: Visitor
    desk: Desk
    look: Look
    signs_out: bool

    async def page(self, template: str, *, status: int = HTTPStatus.OK, **facts: Any) -> Response:
        """A page of the layout.

        Args:
            template: its file in `templates/`.
            status: of the answer.
            facts: what the template names. The frame adds `attention`, `notice`, `csrf`, `now_ms`, `path`.

        Raises:
            redis.RedisError: Redis cannot be asked for what the frame shows on every page.
        """
        html = self.look.render(
            template,
            **facts,
            attention=await read_attention(self.desk.redis),
            notice=await self._notice(),
            csrf=self.visitor.csrf,
            now_ms=self.desk.now_ms(),
            path=self.request.url.path,
            signs_out=self.signs_out,
        )
        return self.html(html, status=status)

    def html(self, html: str, *, status: int = HTTPStatus.OK) -> Response:
        """A page that is rendered already."""
        response = HTMLResponse(html, status_code=status, headers=PRIVATE)
        if self.visitor.new:
            response.headers.append("set-cookie", cookie_header(self.request, self.visitor))
        return response

    async def done(self, path: str, notice: str = "") -> Response:
        """What a form answers: go and see a page.

        Args:
            path: of the page, on this site.
            notice: what that page says at its top, once.

        Raises:
            redis.RedisError: the notice cannot be kept.
        """
        if notice and self.visitor.session_key:
            key = keys.session_notice(self.visitor.session_key)
            await self.desk.redis.set(key, notice[:MOST_NOTICE], ex=NOTICE_SECONDS)
        return redirect(path)

    async def _notice(self) -> str:
        if not self.visitor.session_key or self.visitor.new:
            return ""
        notice = await self.desk.redis.getdel(keys.session_notice(self.visitor.session_key))
        return text(notice) if notice else ""


def redirect(path: str) -> Response:
    """Go and see another page of this site, by GET."""
    return RedirectResponse(path, status_code=HTTPStatus.SEE_OTHER, headers=PRIVATE)
