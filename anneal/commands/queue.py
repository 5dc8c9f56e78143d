"""`anneal queue`: what runs, what waits and why, and who is there to run it."""

from anneal.commands.output import JsonOption, age, client, print_json, print_table


def show(as_json: JsonOption = False) -> None:
    """Show what runs, what waits and why, and the workers."""
    from anneal.progress import note, phase, waits_for

    with client() as service:
        queue = service.queue().to_dict()
    if as_json:
        return print_json(queue)
    running = [(j["id"], j["name"], j["kind"], phase(j), note(j), j["worker"]) for j in queue["running"]]
    print_table(["running", "name", "kind", "status", "", "worker"], running, empty="Nothing runs.")
    queued = [(j["id"], j["name"], j["kind"], j["position"], waits_for({"queue": j})) for j in queue["queued"]]
    print_table(["queued", "name", "kind", "position", "why"], queued, empty="Nothing waits.")
    if queue["queued_total"] > len(queued):
        print(f"... and {queue['queued_total'] - len(queued)} more.")
    workers = [(w["name"], w["queues"], _device(w["device"]), _doing(w), age(w["seen_at"])) for w in queue["workers"]]
    print_table(["worker", "queues", "device", "does", "seen"], workers, empty="No workers. Start them: anneal up")
    return None


def _device(device: dict[str, object]) -> str:
    gpus = device.get("gpus")
    return ", ".join(map(str, gpus)) if isinstance(gpus, list) and gpus else f"{device.get('cpus')} CPUs"


def _doing(worker: dict[str, object]) -> object:
    if not worker["online"]:
        return "gone"
    return worker["job_id"] or ("another project's job" if worker["busy"] else "idle")
