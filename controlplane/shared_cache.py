"""Django's cache on the Redis that all processes share, asked on this process's one client.

Django makes a client for every question, which takes three times as long as the question itself.
"""

from typing import Any

from django.core.cache.backends.redis import RedisCache, RedisCacheClient

from controlplane.live import redis_client


class _OneClient(RedisCacheClient):
    def get_client(self, key: Any = None, *, write: bool = False) -> Any:
        return redis_client()


class SharedCache(RedisCache):
    """The ordinary Redis cache, at ``LIVE_URL``."""

    def __init__(self, server: str, params: dict[str, Any]) -> None:
        super().__init__(server, params)
        self._class = _OneClient
