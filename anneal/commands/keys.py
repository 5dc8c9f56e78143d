"""`anneal keys`: create, list, revoke."""

from typing import Annotated

import typer

from anneal.commands.output import JsonOption, LimitOption, age, client, print_json, print_table, tell

app = typer.Typer(help="Create and revoke API keys.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    scope: Annotated[list[str] | None, typer.Option(help="What it may do; again for more.")] = None,
    expires_at: Annotated[str | None, typer.Option(help="When it ends (RFC 3339).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print its secret, this once."""
    with client() as service:
        key = service.keys.create(name, scopes=scope, expires_at=expires_at).to_dict()
    if as_json:
        return print_json(key)
    tell(f"Key {key['id']} ({name}). Its secret is shown only now:")
    print(key["key"])
    return None


@app.command("list")
def list_keys(limit: LimitOption = 20, as_json: JsonOption = False) -> None:
    """List keys, without their secrets."""
    with client() as service:
        page = service.keys.list(limit=limit).to_dict()
    if as_json:
        return print_json(page)
    rows = [
        (k["id"], k.get("name"), k.get("scopes"), age(k.get("created_at")), k.get("expires_at")) for k in page["data"]
    ]
    print_table(["id", "name", "scopes", "made", "expires"], rows, empty="No keys.")
    return None


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="The key's id, key_...")],
    as_json: JsonOption = False,
) -> None:
    """Make a key invalid for good."""
    with client() as service:
        service.keys.revoke(key_id)
    if not as_json:
        tell(f"Revoked {key_id}.")
