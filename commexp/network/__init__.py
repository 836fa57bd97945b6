"""Time on a network that need not exist: links, computing, stragglers, and the clock that adds them up."""

from commexp.network.changes import Jitter
from commexp.network.clock import TimedExchange, VirtualClock
from commexp.network.closing import Closing
from commexp.network.coding import NO_CODING, Coding
from commexp.network.compute import Compute
from commexp.network.events import EventClock
from commexp.network.link import Link, Network
from commexp.network.measured import MeasuredRounds
from commexp.network.outage import Outage
from commexp.network.participation import Participation
from commexp.network.regions import Regions
from commexp.network.straggler import Bernoulli, Fixed, Markov, NoStragglers, Straggler
from commexp.network.wall import WallClock

__all__ = [
    "NO_CODING",
    "Bernoulli",
    "Closing",
    "Coding",
    "Compute",
    "EventClock",
    "Fixed",
    "Jitter",
    "Link",
    "Markov",
    "MeasuredRounds",
    "Network",
    "NoStragglers",
    "Outage",
    "Participation",
    "Regions",
    "Straggler",
    "TimedExchange",
    "VirtualClock",
    "WallClock",
]
