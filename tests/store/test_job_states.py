"""Every operation in every state: what it leads to, and that nothing else is ever left, numbered or written."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from queue_steps import ERROR, PROJECT, attempt_rows, bring_to, events, expire, look
from sqlalchemy.orm import Session

from store import attempts, commands, upkeep
from store.attempts import CrashBudget
from store.database import Database
from store.errors import Fenced, IllegalTransition
from store.states import HELD, TERMINAL, TRANSITIONS, State
from store.token import Token

Q, R, PG, PD, CG, CD, S, F = (
    State.QUEUED,
    State.RUNNING,
    State.PAUSING,
    State.PAUSED,
    State.CANCELLING,
    State.CANCELLED,
    State.SUCCEEDED,
    State.FAILED,
)

OPERATIONS: dict[str, Callable[[Session, Token], object]] = {
    "cancel": lambda session, token: commands.cancel(session, PROJECT, token.job_id),
    "pause": lambda session, token: commands.pause(session, PROJECT, token.job_id),
    "resume": lambda session, token: commands.resume(session, PROJECT, token.job_id),
    "claim": lambda session, token: attempts.claim(session, token.job_id, "another", 60),
    "complete": lambda session, token: attempts.complete(session, token, {"done": True}),
    "fail": lambda session, token: attempts.fail(session, token, ERROR),
    "give_up": lambda session, token: attempts.give_up(session, token, "drained"),
    "crash": lambda session, token: attempts.crash(session, token, "signal 9", CrashBudget(3)),
    "last crash": lambda session, token: attempts.crash(session, token, "signal 9", CrashBudget(1)),
    "heartbeat": lambda session, token: attempts.heartbeat(session, token, 60),
}

# Where each operation leads from each state; what is not listed changes nothing or is refused.
LEADS: dict[str, dict[State, State]] = {
    "cancel": {Q: CD, R: CG, PG: CG, PD: CD},
    "pause": {Q: PD, R: PG},
    "resume": {PG: R, PD: Q},
    "claim": {Q: R},
    "complete": {R: S, PG: S},
    "fail": {R: F, PG: F, CG: CD},
    "give_up": {R: Q, PG: PD, CG: CD},
    "crash": {R: Q, PG: PD, CG: CD},
    "last crash": {R: F, PG: F, CG: CD},
    "heartbeat": {},
}
REFUSED: dict[str, set[State]] = {
    "cancel": {S, F},
    "pause": {CG, CD, S, F},
    "resume": {CG, CD, S, F},
    "complete": {Q, PD, CG, CD, S, F},
    "heartbeat": set(State) - HELD,
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("state", State)
def test_every_operation_in_every_state(database: Database, state: State, operation: str) -> None:
    token = bring_to(database, state)
    before = look(database, token.job_id)
    target = LEADS[operation].get(state, state)
    assert target == state or target in TRANSITIONS[state]
    if state in REFUSED.get(operation, ()):
        with pytest.raises((Fenced, IllegalTransition)), database.write() as session:
            OPERATIONS[operation](session, token)
    else:
        with database.write() as session:
            OPERATIONS[operation](session, token)
    after = look(database, token.job_id)
    assert after.state == target
    written = [event.type for event in events(database, token.job_id)]
    assert [event.sequence for event in events(database, token.job_id)] == list(range(1, after.last_sequence + 1))
    assert written[-1] == target
    assert after.last_sequence - before.last_sequence == (target != state)
    if target == state and operation != "heartbeat":
        assert after.updated_at == before.updated_at
    if target not in HELD:
        assert after.lease_until is None
        assert all(row.ended_at is not None for row in attempt_rows(database, token.job_id))
    if target in TERMINAL:
        assert (after.finished_at is not None, after.nudge_at) == (True, None)
    assert (after.nudge_at is not None) == (target == Q)


def test_terminal_states_are_never_left() -> None:
    assert all(not TRANSITIONS[state] for state in TERMINAL)
    assert {target for leads in LEADS.values() for target in leads.values()} == set(State)
    # The table above uses every transition there is but the two that a failed dependency makes (test_dependencies).
    used = {(source, target) for leads in LEADS.values() for source, target in leads.items()}
    allowed = {(source, target) for source, targets in TRANSITIONS.items() for target in targets}
    assert allowed - used == {(Q, F), (State.PAUSED, F)}


@pytest.mark.parametrize(("state", "target"), [(R, Q), (PG, PD), (CG, CD)])
def test_a_lost_lease(database: Database, state: State, target: State) -> None:
    token = bring_to(database, state)
    with database.write() as session:
        assert upkeep.reap(session, CrashBudget(3)) == []  # the lease still holds
    expire(database, token.job_id)
    with database.write() as session:
        assert upkeep.reap(session, CrashBudget(3)) == [token.job_id]
        assert upkeep.reap(session, CrashBudget(3)) == []
    job = look(database, token.job_id)
    assert (job.state, job.failures) == (target, 1 if target == Q else 0)
    (row,) = attempt_rows(database, token.job_id)
    assert row.exit_reason == "the worker stopped answering"
