"""Calls to Close's API, one method each. What carries them, and what comes back, is `workers.close_http`.

Sources: the pages field-enrichment, leads, contacts, events, webhooks and custom-field-schemas in
https://developer.close.com/api/resources.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import msgspec

from workers.close_http import CloseHttp

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from service.rules import Action, ObjectType
    from workers.reply import Failure, Reply

MAX_LOG_PAGE_BYTES = 8 * 1024 * 1024
"""A page of the event log holds up to 50 whole records."""

MAX_SEARCH_PAGE_BYTES = 16 * 1024 * 1024
"""A page of a search holds up to 200 records with the fields that were asked for."""

READ_RECORD_SECONDS = 30.0
"""Close's list calls can take more than ten seconds."""


class CloseApi(CloseHttp):
    """Close's API for one API key."""

    async def enrich_field(
        self,
        *,
        organization_id: str,
        object_type: ObjectType,
        object_id: str,
        field_id: str,
        set_new_value: bool,
        overwrite_existing_value: bool,
        timeout_seconds: float,
    ) -> Reply | Failure:
        """`POST /enrich_field/`: compute one field's value, and save it if `set_new_value`. Costs money.

        Args:
            organization_id: `orga_…`.
            object_type: lead or contact.
            object_id: the record.
            field_id: a custom field's id.
            set_new_value: whether Close saves the value.
            overwrite_existing_value: whether it does so over a value that is there.
            timeout_seconds: how long to wait for the answer.
        """
        content = msgspec.json.encode(
            {
                "organization_id": organization_id,
                "object_type": object_type.value,
                "object_id": object_id,
                "field_id": field_id,
                "set_new_value": set_new_value,
                "overwrite_existing_value": overwrite_existing_value,
            }
        )
        return await self.request("POST", "/enrich_field/", content=content, timeout_seconds=timeout_seconds)

    async def get_record(
        self,
        *,
        object_type: ObjectType,
        object_id: str,
        fields: Sequence[str] | None = None,
        timeout_seconds: float = READ_RECORD_SECONDS,
    ) -> Reply | Failure:
        """`GET /lead/{id}/` or `/contact/{id}/`.

        Args:
            object_type: lead or contact.
            object_id: the record.
            fields: what to ask for, such as `id` and `custom.<field id>`; None for all Close sends by itself.
            timeout_seconds: how long to wait for the answer.
        """
        query = "" if fields is None else "?_fields=" + quote(",".join(fields), safe=",")
        url = f"/{object_type.value}/{quote(object_id, safe='')}/{query}"
        return await self.request("GET", url, timeout_seconds=timeout_seconds)

    async def get_event(
        self, *, event_id: str, timeout_seconds: float = READ_RECORD_SECONDS
    ) -> Reply | Failure:
        """`GET /event/{id}/`: one event of the log."""
        path = f"/event/{quote(event_id, safe='')}/"
        return await self.request("GET", path, timeout_seconds=timeout_seconds)

    async def get_events(
        self,
        *,
        object_type: ObjectType,
        object_id: str,
        updated_since: str,
        timeout_seconds: float = READ_RECORD_SECONDS,
    ) -> Reply | Failure:
        """`GET /event/` for one object: its newest 50 events.

        Args:
            object_type: lead or contact.
            object_id: the record.
            updated_since: the earliest `date_updated`, as Close writes it: UTC without a zone.
            timeout_seconds: how long to wait for the answer.
        """
        filters = {
            "object_type": object_type.value,
            "object_id": object_id,
            "date_updated__gte": updated_since,
            "_limit": "50",
        }
        return await self.request("GET", f"/event/?{urlencode(filters)}", timeout_seconds=timeout_seconds)

    async def get_log_page(
        self,
        *,
        object_type: ObjectType,
        action: Action,
        filters: Mapping[str, str],
        timeout_seconds: float = READ_RECORD_SECONDS,
    ) -> Reply | Failure:
        """`GET /event/` for one kind of event: one page, newest first.

        Args:
            object_type: lead or contact.
            action: created, updated or merged.
            filters: `_limit`, and either `date_updated__gte` and the like or `_cursor`.
            timeout_seconds: how long to wait for the answer.
        """
        query = urlencode({"object_type": object_type.value, "action": action.value, **filters})
        return await self.request(
            "GET",
            f"/event/?{query}",
            timeout_seconds=timeout_seconds,
            max_body_bytes=MAX_LOG_PAGE_BYTES,
        )

    async def post_search(
        self, *, body: Mapping[str, Any], timeout_seconds: float = READ_RECORD_SECONDS
    ) -> Reply | Failure:
        """`POST /data/search/`: one page of a search. It changes nothing and costs no credits.

        Args:
            body: the query and what to bring, see https://developer.close.com/api/resources/advanced-filtering.
            timeout_seconds: how long to wait for the answer.
        """
        return await self.request(
            "POST",
            "/data/search/",
            content=msgspec.json.encode(body),
            timeout_seconds=timeout_seconds,
            max_body_bytes=MAX_SEARCH_PAGE_BYTES,
        )

    async def get_schema(
        self, *, object_type: ObjectType, timeout_seconds: float = READ_RECORD_SECONDS
    ) -> Reply | Failure:
        """`GET /custom_field_schema/{lead|contact}/`: the regular and shared custom fields."""
        url = f"/custom_field_schema/{object_type.value}/"
        return await self.request("GET", url, timeout_seconds=timeout_seconds)

    async def get_me(self, *, timeout_seconds: float = READ_RECORD_SECONDS) -> Reply | Failure:
        """`GET /me/`: the key's user, organizations and permissions."""
        return await self.request("GET", "/me/", timeout_seconds=timeout_seconds)

    async def get_webhooks(
        self, *, skip: int = 0, timeout_seconds: float = READ_RECORD_SECONDS
    ) -> Reply | Failure:
        """`GET /webhook/`: a page of the webhook subscriptions, after the first `skip`."""
        url = f"/webhook/?_skip={skip}" if skip else "/webhook/"
        return await self.request("GET", url, timeout_seconds=timeout_seconds)

    async def get_webhook(
        self, *, subscription_id: str, timeout_seconds: float = READ_RECORD_SECONDS
    ) -> Reply | Failure:
        """`GET /webhook/{id}/`. The reply holds the signature key: it must not be logged."""
        return await self.request("GET", self._webhook(subscription_id), timeout_seconds=timeout_seconds)

    async def post_webhook(
        self,
        *,
        url: str,
        events: Sequence[Mapping[str, Any]],
        timeout_seconds: float = READ_RECORD_SECONDS,
    ) -> Reply | Failure:
        """`POST /webhook/`: a new subscription. The reply holds the signature key: it must not be logged.

        Args:
            url: where events go.
            events: which ones, each with `object_type`, `action` and `extra_filter`.
            timeout_seconds: how long to wait for the answer.
        """
        content = msgspec.json.encode({"url": url, "events": events})
        target = "/webhook/"
        return await self.request("POST", target, content=content, timeout_seconds=timeout_seconds)

    async def put_webhook(
        self,
        *,
        subscription_id: str,
        changes: Mapping[str, Any],
        timeout_seconds: float = READ_RECORD_SECONDS,
    ) -> Reply | Failure:
        """`PUT /webhook/{id}/`. The reply holds the signature key: it must not be logged.

        Args:
            subscription_id: `whsub_…`.
            changes: any of `url`, `events`, `verify_ssl` and `status`; the rest stays.
            timeout_seconds: how long to wait for the answer.
        """
        content = msgspec.json.encode(changes)
        target = self._webhook(subscription_id)
        return await self.request("PUT", target, content=content, timeout_seconds=timeout_seconds)

    async def delete_webhook(
        self, *, subscription_id: str, timeout_seconds: float = READ_RECORD_SECONDS
    ) -> Reply | Failure:
        """`DELETE /webhook/{id}/`: what waits for delivery is lost."""
        return await self.request("DELETE", self._webhook(subscription_id), timeout_seconds=timeout_seconds)

    def _webhook(self, subscription_id: str) -> str:
        return f"/webhook/{quote(subscription_id, safe='')}/"
