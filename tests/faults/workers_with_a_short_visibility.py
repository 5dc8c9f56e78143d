"""A worker of the queue `train` whose broker holds a message back for one second only."""

from store.queue import TRAIN
from store.settings import StoreSettings
from workers.app import create_worker, worker_arguments

settings = StoreSettings()
app = create_worker(settings, (TRAIN,))
app.conf.broker_transport_options = {**app.conf.broker_transport_options, "visibility_timeout": 1}
app.worker_main(worker_arguments(settings, (TRAIN,), 1))
