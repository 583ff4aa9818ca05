"""The dashboard: pages for people and the same as JSON, served by `web` from what is in Redis.

A page is added in four steps:

1. **Read** what it shows in a function `async def read_…(desk, …)` that returns frozen `msgspec.Struct`s
   (`reading.py` and its neighbours). Every read is bounded: counts, `COUNT`, pages by a cursor. Pages and
   JSON share these functions.
2. **Declare** it in a module `pages_….py` as `ROUTES`, a tuple of `Page` (HTML), `Form` (what a button of
   a page does) and `Call` (JSON), see `routes.py`. What a route is asked is one Struct (`asks`): its fields
   come from the path, then from the query or the body, and are checked against their types and
   `msgspec.Meta` limits before the handler runs. The OpenAPI document is made from the same Structs.
3. **Show** it in `templates/<name>.html`, which extends `layout.html`: `{% block main %}`. A handler returns
   `await visit.page("name.html", …)`. Blocks of one look are in `macros.html` (`card`, `state`, `moment`,
   `empty`, `form`, `pager`); classes are explained at the top of `static/app.css`.
4. **Name** the module in `contents.py`, where the navigation has its order.

The frame does the rest for every route: who may see it (`access.py`), the CSRF token of every form, limits of
bodies, headers (`headers.py`), error pages, Redis being away. A template never has a `style` attribute or a
script: the Content-Security-Policy forbids both, and a test looks for them. Jinja2 escapes text from outside.
"""
