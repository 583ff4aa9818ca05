"""The command `init`: from an API key to a first rules file."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--field",
    "fields",
    multiple=True,
    metavar="OBJECT:FIELD",
    help="A field to enrich, such as lead:Industry, by name or id; may be repeated. Nothing is asked then.",
)
@click.option("--all-fields", is_flag=True, help="Every field that can be enriched. Nothing is asked then.")
@click.option("--list", "only_list", is_flag=True, help="Only list the fields that can be enriched.")
@click.option("--per-day", type=click.IntRange(min=1), default=500, show_default=True, help="Credits a day.")
@click.option("--public-url", metavar="URL", help="Where Close will reach `web`.")
@click.option("--redis-url", metavar="URL", help="Leave it out to use the Redis that comes along.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Where rules.yaml and .env go; here by default.",
)
@click.option("--force", is_flag=True, help="Write over files that are there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def init(
    fields: tuple[str, ...],
    *,
    all_fields: bool,
    only_list: bool,
    per_day: int,
    public_url: str | None,
    redis_url: str | None,
    directory: Path,
    force: bool,
    as_json: bool,
) -> None:
    """Read your Close fields, let you pick some, and write rules.yaml and .env.

    The API key is taken from CLOSE_API_KEY, or asked for. It is never an option: other users of the machine
    can see those.

    Example: close-enrich init --field lead:Industry --field contact:Seniority
    """
    from service.cli.initialize import Wishes, run_init

    run_init(
        Wishes(
            fields=fields,
            all_fields=all_fields,
            only_list=only_list,
            per_day=per_day,
            public_url=public_url,
            redis_url=redis_url,
            directory=directory,
            force=force,
            as_json=as_json,
        )
    )
