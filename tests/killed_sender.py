"""A sender that is killed after the PACS answered and before the catalogue says so.

killed_sender.py FOLDER PORT AE_TITLE LEASE_SECONDS
"""

import os
import signal
import sys
from datetime import datetime, timedelta
from pathlib import Path

from service.destinations.dicom import Destination, Settings
from service.retry import Policy
from service.sender import Sender, Terms
from service.stopping import Stop
from storage.queue import Queue
from storage.records import Delivery, DeliveryState
from tests.outbox import open_outbox


class Killed(Queue):
    """A queue whose process does not live to write that an object was delivered."""

    def delivered(self, delivery: Delivery, state: DeliveryState, now: datetime) -> bool:
        """Never returns."""
        os.kill(os.getpid(), signal.SIGKILL)
        return super().delivered(delivery, state, now)


def main() -> None:
    """Send until killed."""
    folder, port, ae_title, lease = sys.argv[1:]
    outbox = open_outbox(Path(folder))
    settings = Settings(ae_title=ae_title, host="127.0.0.1", port=int(port))
    policy = Policy(first=timedelta(seconds=1), maximum=timedelta(seconds=1))
    Sender(
        queue=Killed(outbox.database),
        store=outbox.store,
        destinations={"pacs": Destination(settings, "HOUNSFIELD")},
        terms=Terms(policy=policy, lease=timedelta(seconds=float(lease))),
        stop=Stop(),
    ).run(lambda: None)


if __name__ == "__main__":
    main()
