"""The box's nginx configuration as one text, made of the settings alone.

nginx runs in `run/`, so that sockets and files have short relative names. Every request is handed on as nginx itself understood it
(decoded, `//` and `..` resolved, encoded again), so that MLflow cannot read a path otherwise than the rules here did.
"""

from __future__ import annotations

import re

from tracking_server import nginx_parts as parts
from tracking_server import replies
from tracking_server.settings import Settings

CONNECTIONS = 4096  # a waiting client takes two, and a third while its login is checked
BODY_MEGABYTES = 64
# nginx keeps a body on the disk until the whole of it is there, so that MLflow waits for no slow client; but an artifact is passed on as it
# comes. So many at once, of clients that were let in: 2 GB in all. A batch has 10 kB to 1 MB (MLflow takes no larger one of metrics).
BATCHES, LARGE_BODIES = 1024, 16
KEEP_SECONDS = 1  # a connection to MLflow is kept so long for the next request: long enough for a job's stream of metrics
_ASSISTANT = r"^/mlflow/(?:ajax-)?api/[0-9.]+/(?:mlflow/)?assistant(?:/|$)"
_STARTS_JOBS = r"(?:mlflow/)?(?:prompt-optimization/)?jobs|mlflow/(?:scorer|genai/evaluate|issues)/invoke"
_JOBS = rf"^/mlflow/(?:ajax-)?api/[0-9.]+/(?:{_STARTS_JOBS})(?:/|$)"
_GATEWAY = r"^/mlflow/(?:gateway|(?:ajax-)?api/[0-9.]+/mlflow/gateway|(?:ajax-)?api/[0-9.]+/mlflow/gateway-proxy)(?:/|$)"
_ARTIFACT = r"^/mlflow/(?:ajax-)?api/2\.0/mlflow-artifacts/artifacts/."  # below no prefix in MLflow, but for DELETE, an ordinary route

_TEMPLATE = """\
# Made by the guard from config/settings.json; edit that.
daemon off;
pid nginx.pid;
error_log ../log/nginx-error.log warn;
worker_processes 1;
worker_shutdown_timeout {drain}s;
{user}events {{
    worker_connections {connections};
}}
http {{
    server_tokens off;
    map_hash_bucket_size 512;
    uninitialized_variable_warn off;
    default_type application/octet-stream;
{log}
    access_log ../log/access.log box;
    client_body_temp_path nginx-body;
    proxy_temp_path nginx-proxy;
    fastcgi_temp_path nginx-fastcgi;
    scgi_temp_path nginx-scgi;
    uwsgi_temp_path nginx-uwsgi;
    absolute_redirect off;
    large_client_header_buffers 2 16k;
    client_body_timeout 300s;
    send_timeout 300s;
    client_max_body_size {body}m;
    proxy_http_version 1.1;
    proxy_connect_timeout 60s;
    proxy_read_timeout 3600s;
    proxy_send_timeout 3600s;
    proxy_next_upstream off;
    proxy_max_temp_file_size 0;
{maps}
{origins}
    map $request_method $aihub_artifact_prefix {{ default ""; DELETE /mlflow; }}
    map $uri $aihub_artifact {{
        default "";
        {artifact_map} 1;
    }}
    upstream mlflow {{
        server unix:mlflow.sock;
        keepalive 16;
        keepalive_timeout {keep}s;
    }}
    upstream guard {{
        server unix:guard.sock;
        keepalive 8;
    }}
    server {{
        listen {listen} backlog=4096;
        server_name _;
        default_type application/json;
        set $aihub_principal -;
        set $aihub_retry_after "";
        set $aihub_foreign "";
        set $aihub_why "";
        set $aihub_largest {upload};
        add_header X-Request-Id $aihub_request_id always;
        # To MLflow's routes a newline at the end is as good as none.
        if ($uri ~ "[\\x01-\\x1f\\x7f]") {{
            {reply_400_path}
        }}
        error_page 401 = @refused;
        error_page 403 = @forbidden;
        error_page 404 = @unknown;
        error_page 413 = @too_large;
        error_page 500 = @failed_here;
        error_page 502 504 = @failed;
        error_page 503 = @crowded;
        location = / {{
            return 308 /mlflow/;
        }}
        location = /mlflow {{
            return 308 /mlflow/;
        }}
        location = /mlflow/health {{
            access_log off;
{bodiless}
            proxy_pass http://guard/health;
{to_guard}
        }}
        location = /mlflow/version {{
{bodiless}
            proxy_pass http://guard/version;
{to_guard}
        }}
        location = /mlflow/-/health {{
            access_log off;
{bodiless}
            proxy_pass http://guard/-/health;
{to_guard}
        }}
        location = /mlflow/-/info {{
{auth}
{bodiless}
            proxy_pass http://guard/-/info;
{to_guard}
            proxy_set_header X-Aihub-Principal $aihub_principal;
        }}
        location = /mlflow/-/sign-in {{
            proxy_pass http://guard/-/sign-in;
{sign_in}
{to_guard}
        }}
        location = /mlflow/-/sign-out {{
            proxy_pass http://guard/-/sign-out;
{sign_in}
{to_guard}
        }}
        location ^~ /mlflow/-/ {{
            return 404;
        }}
        location = /mlflow/ {{
{auth}
{bodiless}
{to_mlflow}
{attention}
        }}
        location ^~ /mlflow/static-files/ {{
{auth}
{bodiless}
{to_mlflow}
            gzip on;
            gzip_proxied any;
            gzip_min_length 4096;
            gzip_types application/javascript text/javascript text/css application/json image/svg+xml;
        }}
{rules}
        location ~ {artifact} {{
{auth}
            if ($aihub_stray) {{
                {reply_400_body}
            }}
            rewrite ^/mlflow(/.*)$ $aihub_artifact_prefix$1 break;
{to_mlflow}
{sandbox}
            client_max_body_size {upload};
            proxy_request_buffering off;
            proxy_buffering off;
        }}
        location /mlflow/ {{
{auth}
            try_files /nothing @mlflow;
        }}
        location @mlflow {{
{bounded}
{to_mlflow}
{sandbox}
        }}
        location / {{
            return 404;
        }}
        location = /auth {{
            internal;
            client_max_body_size 0;
            proxy_pass http://guard/auth;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_set_header Transfer-Encoding "";
{to_guard}
            proxy_set_header X-Original-Method $request_method;
            proxy_set_header X-Original-Path $uri;
        }}
        location @refused {{
            add_header WWW-Authenticate $aihub_challenge always;
            add_header Retry-After $aihub_retry_after always;
            add_header X-Request-Id $aihub_request_id always;
            add_header X-Aihub-Why $aihub_why always;
            if ($aihub_refusal = 429) {{
                {reply_429}
            }}
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
{to_guard}
            if ($aihub_page) {{
                rewrite ^ /-/refused break;
                proxy_pass http://guard;
            }}
            if ($aihub_why = closed) {{
                {reply_401_closed}
            }}
            if ($aihub_why = expired) {{
                {reply_401_expired}
            }}
            if ($aihub_portal) {{
                {reply_401_portal}
            }}
            {reply_401}
        }}
        location @forbidden {{
            if ($aihub_foreign) {{
                {reply_403_foreign}
            }}
            {reply_403}
        }}
        location @unknown {{
            {reply_404}
        }}
        location @too_large {{
            if ($aihub_artifact) {{
                {reply_413_artifact}
            }}
            {reply_413}
        }}
        location @failed {{
            add_header Retry-After 2 always;
            add_header X-Request-Id $aihub_request_id always;
            {reply_503}
        }}
        location @crowded {{
            add_header Retry-After 10 always;
            add_header X-Request-Id $aihub_request_id always;
            {reply_503_crowded}
        }}
        location @failed_here {{
            add_header Retry-After 2 always;
            add_header X-Request-Id $aihub_request_id always;
            {reply_503_own}
        }}
    }}
}}
"""


def nginx_text(settings: Settings, *, user: str | None) -> str:
    """The whole configuration. `user`: the account of the workers, said only where the master is root."""
    bounded = parts.BOUNDED.format(batches=BATCHES, large=LARGE_BODIES)
    rules = [
        _refusing(_ASSISTANT),
        *([] if settings.genai_jobs else [_refusing(_JOBS)]),
        parts.OPEN_GATEWAY.format(bounded=bounded) if settings.allow_gateway else _refusing(_GATEWAY),
    ]
    return _TEMPLATE.format(
        keep=KEEP_SECONDS,
        drain=max(1, round(settings.drain_seconds)),
        user=f"user {user};\n" if user else "",
        connections=CONNECTIONS,
        body=BODY_MEGABYTES,
        listen=settings.listen,
        auth=parts.AUTH,
        log=parts.LOG,
        maps=parts.MAPS,
        origins=parts.ORIGINS.format(
            hosts="\n        ".join(f'"{host}" {host};' for host in settings.public_hosts),
            pages="\n        ".join(f'"{page}" $http_origin;' for page in settings.pages),
        ),
        sign_in=parts.SIGN_IN,
        bodiless=parts.BODILESS,
        attention=parts.attention(settings.idle_seconds),
        bounded=bounded,
        to_guard=parts.TO_GUARD,
        to_mlflow=parts.TO_MLFLOW,
        sandbox=parts.SANDBOX,
        rules="\n".join(rules),
        artifact=_quoted(_ARTIFACT),
        artifact_map=_quoted(f"~{_ARTIFACT}"),
        upload=min(settings.max_upload_bytes or settings.tmp_bytes, settings.tmp_bytes),
        **{f"reply_{name}": statement for name, statement in replies.statements().items()},
    )


def _refusing(pattern: str) -> str:
    return f"        location ~ {_quoted(pattern)} {{\n            return 403;\n        }}"


def _quoted(pattern: str) -> str:
    """A regular expression as nginx takes it; none of ours has quotes."""
    if re.search(r"[\"\s]", pattern):
        raise ValueError(f"quotes or spaces in {pattern}")
    return f'"{pattern}"'
