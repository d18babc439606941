"""The reference server of the REST side: small parts and pointers of models, behind a login.

application   the routes: which account may do what, in one read
settings      everything a server is started with
accounts      who may log in: names, roles, password hashes
tokens        what a login returns, and the keys that sign it
throttle      how often a login may fail
storage       files on disk: whole under their name, or not there
uploads       a multipart body, streamed into storage
cdn           the `cdn.yaml` a role may see
perimeter     what is around every request: headers, log line
problems      what a refused caller is told
refusals      which failure is told how
"""

from trainwright_resource_api.application import create_app
from trainwright_resource_api.settings import Settings

__all__ = ["Settings", "create_app"]
