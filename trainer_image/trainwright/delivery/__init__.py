"""Delivery of sealed models: big parts to a CDN, small parts and pointers to the resource API, and back."""

from trainwright.delivery.cdn import Cdn
from trainwright.delivery.credentials import ApiCredentials, CdnCredentials
from trainwright.delivery.fetcher import Fetched, Keys, Source, fetch, fetch_cdn_credentials
from trainwright.delivery.pointers import name_parts, name_pointer
from trainwright.delivery.publisher import Destination, Fence, Publication, publish
from trainwright.delivery.resource_api import FileMissingError, ResourceApi

__all__ = [
    "ApiCredentials",
    "Cdn",
    "CdnCredentials",
    "Destination",
    "Fence",
    "Fetched",
    "FileMissingError",
    "Keys",
    "Publication",
    "ResourceApi",
    "Source",
    "fetch",
    "fetch_cdn_credentials",
    "name_parts",
    "name_pointer",
    "publish",
]
