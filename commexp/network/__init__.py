"""The network: what an exchange costs in seconds."""

from commexp.network.link import Network

__all__ = ["Network"]
