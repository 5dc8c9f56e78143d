"""`anneal webhooks`: create, list, test, deliveries, redeliver, rotate, delete."""

from typing import Annotated

import typer

from anneal.commands.output import JsonOption, LimitOption, age, client, print_json, print_table, tell

app = typer.Typer(help="Be told of what happens, over HTTP.", no_args_is_help=True)

WebhookId = Annotated[str, typer.Argument(metavar="WEBHOOK", help="The webhook's id, whk_...")]


@app.command()
def create(
    url: Annotated[str, typer.Argument(help="The address to send to.")],
    event: Annotated[list[str] | None, typer.Option(help="An event to send; again for more; else all.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Have events sent to an address, and print the secret to verify them by, this once."""
    with client() as service:
        webhook = service.webhooks.create(url, events=event).to_dict()
    if as_json:
        return print_json(webhook)
    tell(f"Webhook {webhook['id']} sends to {url}. Its secret is shown only now:")
    print(webhook["secret"])
    return None


@app.command("list")
def list_webhooks(as_json: JsonOption = False) -> None:
    """List webhooks, without their secrets."""
    with client() as service:
        found = [webhook.to_dict() for webhook in service.webhooks.list()]
    if as_json:
        return print_json(found)
    rows = [(w["id"], w["url"], w["events"], w["enabled"], age(w["created_at"])) for w in found]
    print_table(["id", "url", "events", "enabled", "made"], rows, empty="No webhooks.")
    return None


@app.command()
def deliveries(webhook_id: WebhookId, limit: LimitOption = 20, as_json: JsonOption = False) -> None:
    """List what was sent, what the receiver answered, and what is still to be sent."""
    with client() as service:
        page = service.webhooks.deliveries(webhook_id, limit=limit).to_dict()
    if as_json:
        return print_json(page)
    rows = [
        (d["id"], d["event"], d["status"], d["attempts"], d["last_status"], d["last_error"], age(d["created_at"]))
        for d in page["data"]
    ]
    print_table(["id", "event", "status", "tries", "answer", "error", "made"], rows, empty="Nothing was sent yet.")
    return None


@app.command()
def test(webhook_id: WebhookId) -> None:
    """Send an event to try it out."""
    with client() as service:
        tell(f"Sending {service.webhooks.test(webhook_id).id}.")


@app.command()
def redeliver(
    webhook_id: WebhookId,
    delivery_id: Annotated[str, typer.Argument(metavar="DELIVERY", help="The delivery's id, msg_...")],
) -> None:
    """Send a delivery once more."""
    with client() as service:
        tell(f"Sending {service.webhooks.redeliver(webhook_id, delivery_id).id} again.")


@app.command()
def rotate(webhook_id: WebhookId, as_json: JsonOption = False) -> None:
    """Make a new secret and print it, this once; for a day the old one is good too."""
    with client() as service:
        webhook = service.webhooks.rotate(webhook_id).to_dict()
    if as_json:
        return print_json(webhook)
    print(webhook["secret"])
    return None


@app.command()
def delete(webhook_id: WebhookId) -> None:
    """Stop sending, and forget what was sent."""
    with client() as service:
        service.webhooks.delete(webhook_id)
    tell(f"Deleted {webhook_id}.")
