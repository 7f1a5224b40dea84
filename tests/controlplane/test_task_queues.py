"""Which worker does what: each takes one queue, and a task in the wrong one meets a vault without its keys."""

from celery import current_app

from controlplane.celery import QUEUES

SIGNING = {"sign_training", "sign_round", "publish_round"}


def queue_of(name: str) -> str:
    route = current_app.amqp.router.route({}, name)
    return str(route["queue"].name)


def test_every_task_goes_to_the_worker_that_holds_its_keys() -> None:
    current_app.finalize(auto=True)
    ours = [name for name in current_app.tasks if name.split(".")[0] in ("devices", "keys", "rounds")]
    assert len(ours) > 15
    for name in ours:
        app, _, task = name.partition(".tasks.")
        expected = "aggregate"
        if app in ("devices", "keys") or task in SIGNING:
            expected = "authority"
        elif task == "process_update":
            expected = "intake"
        assert queue_of(name) == expected, name
        assert expected in QUEUES
