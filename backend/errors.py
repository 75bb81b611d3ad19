"""Every failure that a caller can meet: a stable code, the HTTP status, what and why, and the cure.

The table is the one place where these are written. ``{names}`` are filled from the error's parameters when it is shown, in the
reader's language; an operation stores code and parameters, never the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Failure:
    """One row: HTTP status, the sentence (what and why), the cure."""

    status: int
    detail: str
    cure: str


FAILURES: Final[dict[str, Failure]] = {
    # the request
    "invalid_request": Failure(422, "The request is not valid: {why}", "Correct the fields that are named and send it again."),
    "not_json": Failure(400, "The request's body is not JSON: {why}", "Send a JSON object with Content-Type application/json."),
    "too_large": Failure(413, "The request's body is larger than {limit} bytes", "Send less at once."),
    "no_such_path": Failure(404, "There is nothing at {path}", "See /api/v1/openapi.json for what there is."),
    "method_not_allowed": Failure(405, "{method} is not possible at {path}", "See /api/v1/openapi.json for what is possible."),
    "too_many_requests": Failure(429, "Too many expensive requests are under way", "Try again in a few seconds."),
    "bad_http": Failure(400, "The request is not proper HTTP: {why}", "Use an ordinary HTTP client."),
    "internal": Failure(
        500,
        "The service has an internal error (request {request_id})",
        "Give the admins that request id; the service's log has the reason.",
    ),
    # who calls
    "caller_unknown": Failure(
        401, "User id {uid} has no name on the service's host", "Ask the admins to make your account known on that host."
    ),
    "credential_missing": Failure(
        401,
        "This address of the service requires a MUNGE credential, and the request has none",
        "Use mlwf with munge_uid in its settings; for an API token the service has another address, which the admins know.",
    ),
    "credential_refused": Failure(
        401,
        "The service's host does not accept your host's MUNGE credential: it was made with another key, or was damaged",
        "Ask the admins to give both hosts the same MUNGE key.",
    ),
    "credential_clock": Failure(
        401,
        "The clocks of your host and of the service's host differ ({seconds} s between making the MUNGE credential and reading it)",
        "Ask the admins to set your host's clock (NTP), then try again.",
    ),
    "credential_replayed": Failure(
        401, "This MUNGE credential was used before, and each is valid for one request only", "Send the request again with a new one."
    ),
    "credential_for_other": Failure(
        401, "The MUNGE credential is not for the service's account (uid {uid}) alone", "Set munge_uid to {uid} in mlwf's settings."
    ),
    "credential_mismatch": Failure(
        401, "The MUNGE credential was made for another request (another {what})", "Use {url} as the service's address in mlwf's settings."
    ),
    "munge_failed": Failure(503, "MUNGE does not work on the service's host: {why}", "Tell the admins: munged must run there."),
    "token_missing": Failure(
        401,
        "This address of the service requires an API token, and the request has none",
        "Put yours into the file that token_file names; for MUNGE the service has another address, which the admins know.",
    ),
    "token_unknown": Failure(401, "The API token is not one of this service's", "Check the file that holds it, or ask the admins for one."),
    "token_expired": Failure(401, "The API token {id} was valid until {date}", "Ask the admins for a new one."),
    "token_revoked": Failure(401, "The API token {id} was revoked", "Ask the admins for a new one."),
    "no_such_user": Failure(404, "There is no user {user} on the service's host", "Check the name."),
    "no_such_token": Failure(404, "There is no API token {id}", "Look at `aihub tokens list --all`."),
    "directory_failed": Failure(
        503,
        "The site's user directory (NSS) did not answer, so nobody can be let in: {why}",
        "Try again in a minute; if it goes on, tell the admins.",
    ),
    "not_a_member": Failure(403, "{user} is not a member of group {group}", "Ask the group's manager to add you, then log in again."),
    "group_not_offered": Failure(
        403, "Group {group} is not among those that may have tracking servers at this site", "Choose another group, or ask the admins."
    ),
    "not_allowed": Failure(403, "The site lets only {who} do this", "Ask one of them to do it."),
    "group_changed": Failure(
        409,
        "Group {group} now has a different id ({now}) from when the server was made ({then}), so the server is frozen",
        "Ask the admins to check who the group is.",
    ),
    # the server
    "no_such_server": Failure(
        404, "There is no tracking server {env_name} in group {group} that you can see", "Look at the list for the right name."
    ),
    "server_replaced": Failure(
        404,
        "The tracking server {env_name} in group {group} is a new one by now: the one that you meant was deleted",
        "Look at the list, and ask again if you mean the new one.",
    ),
    "no_such_operation": Failure(404, "There is no operation {id} that you can see", "Look at the server itself."),
    "server_exists": Failure(409, "Group {group} already has a tracking server {env_name}", "Choose another env_name, or use that one."),
    "nothing_to_restore": Failure(
        404,
        "There is no deleted tracking server {env_name} in group {group} that can be restored",
        "Create it again; its bucket was not touched.",
    ),
    "server_busy": Failure(409, "Another operation ({kind}) is under way on this server", "Wait until it has ended."),
    "server_deleting": Failure(
        409, "This server is being deleted", "Wait until it is deleted: then its name is free, and it can be restored."
    ),
    "too_many_servers": Failure(
        409, "Group {group} has {count} tracking servers, which is the site's limit", "Delete one that is not used, or ask the admins."
    ),
    "too_many_kept": Failure(
        409,
        "{count} deleted tracking servers of group {group} are still kept, which is the site's limit",
        "Restore one of them instead, wait until one of them expires, or ask the admins to purge those that nobody needs.",
    ),
    "ports_exhausted": Failure(
        503, "No port is free in the service's range {range}", "Tell the admins to widen port_first to port_last, or to purge servers."
    ),
    "uids_exhausted": Failure(
        503, "No uid is free in the service's range {range}", "Tell the admins to widen uid_first to uid_last, or to purge servers."
    ),
    "port_taken": Failure(
        409,
        "Port {port} of this server is held by another program",
        "Tell the admins: that program must release it; the server then starts by itself.",
    ),
    "version_missing": Failure(
        409, "MLflow {version} is not installed on the service's host", "Ask the admins to install it, or choose another version."
    ),
    "size_unknown": Failure(409, "There is no size {size} at this site", "Choose one of: {sizes}."),
    "version_older": Failure(
        409,
        "MLflow {version} is older than this server's {current}, and a database cannot go back to an older schema",
        "Choose a newer version; a recent upgrade can be rolled back instead.",
    ),
    "migration_failed": Failure(
        502, "The database could not be brought to MLflow {version}: {why}", "The server goes on as it was; give the log to the admins."
    ),
    "version_unfit": Failure(
        502, "MLflow {version} does not serve this server's data as it should: {why}", "The server goes on as it was; tell the admins."
    ),
    "version_down": Failure(
        502, "The tracking server did not start with MLflow {version}: {why}", "Unless it goes on as it was, roll it back; tell the admins."
    ),
    "nothing_to_roll_back": Failure(
        404,
        "No earlier version is kept of tracking server {env_name} in group {group}",
        "An upgrade can be rolled back only for some days; ask the admins for a backup.",
    ),
    "rollback_differs": Failure(
        409,
        "The tracking server {env_name} would now go back to MLflow {now}, not to {asked}: it was upgraded or rolled back meanwhile",
        "Look at the list, and ask again if that is what you want.",
    ),
    "endpoint_fixed": Failure(403, "This site's tracking servers use the object store {endpoint} only", "Leave endpoint_url out."),
    "endpoint_closed": Failure(
        422,
        "The firewall of this site's tracking servers lets none of them connect to the object store {endpoint}",
        "Name a store that is open to them, or ask the admins to add {entry} to the setting egress.",
    ),
    "no_portal": Failure(
        409, "This site has no portal through which a browser could sign in", "Use the inside URL with a registered user name and password."
    ),
    "auth_info_missing": Failure(
        409,
        "No user is registered for the tracking server {env_name} yet, and until then it lets nobody in",
        "Register Auth Info first, in the console or with mlwf server auth.",
    ),
    "server_not_up": Failure(409, "The tracking server {env_name} does not run now ({status})", "Start it, then open it again."),
    "no_such_bearer_token": Failure(404, "This server has no token {id}", "Look at the list of its tokens."),
    "token_of_other": Failure(
        403, "The token {id} belongs to {user}", "Ask {user}, or anybody who may set this server's users, to revoke it."
    ),
    "token_too_long": Failure(403, "At this site a token is valid for {days} days at most", "Ask for a shorter time."),
    "too_many_tokens": Failure(409, "You have {count} tokens of this server, which is the limit", "Revoke those that are no longer used."),
    "lease_of_other": Failure(409, "The lease {id} belongs to {user}", "Choose another id for yours."),
    "too_many_leases": Failure(409, "This server has {count} leases, which is the limit", "End those that are no longer needed."),
    # the box
    "box_failed_to_start": Failure(
        502, "The tracking server did not start: {why}", "The lines of its log say more; try Start again, or give them to the admins."
    ),
    "box_failed_to_stop": Failure(502, "The tracking server did not stop: {why}", "Try again; if it goes on, tell the admins."),
    "box_ill": Failure(
        502, "The tracking server runs but does not answer as it should: {why}", "Stop and start it; if it goes on, tell the admins."
    ),
    "keeper_failed": Failure(
        502, "The tracking server's folder could not be made ready: {why}", "Tell the admins; the service's log has more."
    ),
    "host_short_of_disk": Failure(
        507,
        "The service's host has {free} GiB free, and {needed} GiB must be for another tracking server",
        "Ask the admins to free space; existing servers go on.",
    ),
    "disk_low": Failure(
        507,
        "The disk of this tracking server has only {free} MiB free, and will soon take no more runs",
        "Tell the admins to free space on the service's host; nothing was lost.",
    ),
    "server_too_large": Failure(
        507,
        "This tracking server's own files take {used} GiB, and the site's bound is {bound} GiB",
        "Make another tracking server for new work, or ask the admins to raise server_disk; deleted runs go on taking space.",
    ),
    "disk_full": Failure(507, "The service's host has no space left for this server ({why})", "Tell the admins; nothing was lost."),
    "daemon_disk_full": Failure(
        507,
        "The containers' daemon on the service's host has no space left: {why}",
        "Tell the admins to free space for Docker's own folder (Docker Root Dir in `docker info`); `docker system df` shows what takes "
        "it up.",
    ),
    "runtime_unavailable": Failure(503, "The runtime {runtime} does not answer: {why}", "Tell the admins; running servers keep running."),
    "runtime_refused": Failure(503, "The runtime {runtime} refuses this: {why}", "Tell the admins; running servers keep running."),
    "runtime_rootless": Failure(
        503,
        "The containers' daemon at {address} runs without root, and so without the servers' user ids, limits and firewall",
        "Tell the admins: docker_host must be the socket of a daemon that root runs.",
    ),
    "image_missing": Failure(
        503,
        "There is no image {image} on the service's host",
        "Tell the admins to build one (tracking_server/build-image); running servers keep running.",
    ),
    "network_unusable": Failure(
        503,
        "The servers' network {network} could not be made: {why}",
        "Tell the admins: gate_network and mlflow_network must be free on the service's host.",
    ),
    "network_differs": Failure(
        503,
        "The network {network} on the service's host was made by somebody else, or with another subnet than {subnet}",
        "Tell the admins: stop all servers, remove it (docker network rm {network}), and start them.",
    ),
    # the object store
    "storage_key_unknown": Failure(
        422,
        "The object store does not know the access key {access_key_id}",
        "Check cloud_storage_accesskey_ID; a new key may take a minute.",
    ),
    "storage_secret_wrong": Failure(
        422, "The secret access key does not belong to the access key {access_key_id}", "Type or choose the secret again."
    ),
    "storage_bucket_missing": Failure(
        422, "There is no bucket {bucket} at {endpoint}", "Make the bucket first, or correct cloud_storage_bucket_name."
    ),
    "storage_forbidden": Failure(
        422,
        "The key {access_key_id} may not {action} in bucket {bucket}",
        "Give the key that right, use a key of the bucket's owner, or correct cloud_storage_bucket_name: some stores give the same "
        "answer when there is no such bucket.",
    ),
    "storage_unreachable": Failure(
        422, "The object store {endpoint} cannot be reached: {why}", "Check the endpoint's address; if it is right, try again later."
    ),
    "storage_not_s3": Failure(
        422, "What answers at {endpoint} does not speak S3: {why}", "Check the endpoint's address, port and http or https."
    ),
    "storage_region_wrong": Failure(
        422, "The bucket {bucket} is not in region {region}", "Name the bucket's own region, or leave region out for the site's."
    ),
    "storage_full": Failure(422, "The bucket {bucket} accepts no more data ({why})", "Free space or raise its quota, then try again."),
    "storage_clock": Failure(
        503, "The clocks of the service's host and of the object store differ by too much", "Tell the admins to set the clock."
    ),
    "database_lost": Failure(
        502,
        "The database of this tracking server is not where it was ({path}), and none is made in its place",
        "Tell the admins: its disk may not be mounted, or the last backup has it; the server starts by itself when it is back.",
    ),
    # snapshots, backups
    "snapshot_failed": Failure(
        502,
        "The database could not be copied: {why}",
        "Nothing was removed; try again, or tell the admins, who can delete such a server with aihub servers delete --damaged.",
    ),
    "backup_failed": Failure(502, "The backup could not be made: {why}", "Nothing was left behind; put that right and try again."),
    "backup_damaged": Failure(422, "The backup {path} cannot be used: {why}", "Use another backup."),
    "registry_newer": Failure(
        409,
        "The registry has revision {now}, which a newer version of the service made: this one knows only those up to {needed}",
        "Use that version again, or put back a backup from before it.",
    ),
    "state_not_empty": Failure(
        409, "{path} exists already, and a backup can be put back only on an empty machine", "Move it away, or name another state_dir."
    ),
    "snapshot_damaged": Failure(502, "The kept copy of the database is damaged: {why}", "Tell the admins: the last backup may have it."),
}


class ServiceError(Exception):
    """A failure with its code and parameters (strings and numbers, never a secret). ``log`` is what the box said last, where it did."""

    def __init__(self, code: str, *, log: str | None = None, **params: object) -> None:
        self.failure = FAILURES[code]
        self.code = code
        self.params: dict[str, object] = params
        self.log = log
        super().__init__(f"{code}: {self.failure.detail.format_map(params)}")
