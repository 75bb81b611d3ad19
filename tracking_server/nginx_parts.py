"""Pieces of nginx's configuration that several of its locations have: text as `tracking_server.nginx` puts it in."""

from pathlib import Path

AUTH = """\
            auth_request /auth;
            auth_request_set $aihub_principal $upstream_http_x_aihub_principal;
            auth_request_set $aihub_server $upstream_http_x_aihub_server;
            auth_request_set $aihub_retry_after $upstream_http_x_aihub_retry_after;
            auth_request_set $aihub_foreign $upstream_http_x_aihub_foreign;
            auth_request_set $aihub_why $upstream_http_x_aihub_why;"""

# Whoever asks: a body that never comes is not waited for, or a few thousand strangers' would take all connections.
BODILESS = """\
            if ($aihub_body = with) {
                return 413;
            }"""

# Here a body is waited for: not long, and of one address not often at once.
SIGN_IN = """\
            client_body_timeout 10s;
            limit_conn doors 64;
            client_max_body_size 8k;
            client_body_buffer_size 8k;
            proxy_hide_header X-Aihub-Principal;"""

TO_GUARD = """\
            proxy_set_header Connection "";
            proxy_set_header X-Request-Id $aihub_request_id;
            proxy_set_header X-Real-IP $remote_addr;"""

TO_MLFLOW = """\
            rewrite ^ $uri break;
            proxy_pass http://mlflow;
            proxy_set_header Host $aihub_host;
            proxy_set_header Origin $aihub_origin;
            proxy_set_header Connection "";
            proxy_set_header Authorization "";
            proxy_set_header Proxy-Authorization "";
            proxy_set_header Cookie "";
            proxy_set_header X-Request-Id $aihub_request_id;
            proxy_set_header X-Aihub-Principal $aihub_principal;
            proxy_set_header X-Aihub-Server $aihub_server;"""

SANDBOX = """\
            proxy_hide_header Content-Security-Policy;
            proxy_hide_header X-Content-Type-Options;
            add_header X-Request-Id $aihub_request_id always;
            add_header Content-Security-Policy sandbox always;
            add_header X-Content-Type-Options nosniff always;"""

# In a location that `try_files` leads to once somebody is let in: nginx counts before it asks who it is, and would count strangers, too.
BOUNDED = """\
            limit_conn batches {batches};
            limit_conn large {large};"""

OPEN_GATEWAY = f"""\
        location ^~ /mlflow/gateway/ {{{{
{AUTH}
            try_files /nothing @gateway;
        }}}}
        location @gateway {{{{
{{bounded}}
{TO_MLFLOW}
{SANDBOX}
            proxy_buffering off;
        }}}}"""
"""A model's words are passed on as they come."""

# Whoever asks: a line is no longer than this, since anybody may write them, as fast as the network is.
LOG = """\
    map $request_method $aihub_method {
        default $request_method;
        "~(?s)^(?<aihub_word>.{32})." $aihub_word...;
    }
    map $uri $aihub_path {
        default $uri;
        "~(?s)^(?<aihub_head>.{512})." $aihub_head...;
    }
    map $upstream_http_x_aihub_principal $aihub_answered { default $upstream_http_x_aihub_principal; "" -; }
    map $aihub_principal $aihub_who { default $aihub_principal; "" -; - $aihub_answered; }
    log_format box '$remote_addr $aihub_who [$time_iso8601] $aihub_method $aihub_path $status '
                   '$body_bytes_sent $request_time $aihub_request_id';"""

# MLflow gives every page of the visitor's own host, whoever's it is, leave to read with the visitor's login: it hears of our pages only.
# And it compares hosts letter by letter; to a map, as to everybody else, a capital in a host's name means nothing.
ORIGINS = """\
    map $http_host $aihub_host {{
        default $http_host;
        {hosts}
    }}
    map $http_origin $aihub_origin {{
        default "";
        {pages}
    }}"""

MAPS = """\
    map $aihub_retry_after $aihub_refusal {
        default 429;
        "" 401;
    }
    map $http_x_forwarded_user $aihub_portal {
        default 1;
        "" "";
    }
    map "$aihub_retry_after$aihub_why:$aihub_portal" $aihub_challenge {
        default "";
        ":" 'Basic realm="MLflow"';
        "expired:" 'Basic realm="MLflow"';
    }
    map "$http_content_length$http_transfer_encoding" $aihub_body {
        default with;
        "" without;
        0 without;
    }
    map "$http_content_length:$http_transfer_encoding" $aihub_batch {
        default "";
        "~^[0-9]{5,6}:$" 1;
    }
    map "$http_content_length:$http_transfer_encoding:$http_content_encoding" $aihub_large {
        default 1;
        "~^[0-9]{0,6}::$" "";
    }
    limit_conn_zone $aihub_batch zone=batches:32k;
    limit_conn_zone $aihub_large zone=large:32k;
    limit_conn_zone $binary_remote_addr zone=doors:1m;
    map "$request_method:$aihub_portal:$aihub_body:$http_accept" $aihub_page {
        default "";
        "~^GET:1:without:.*text/html" 1;
    }
    map "$request_method:$aihub_body" $aihub_stray {
        default "";
        "~^PUT:" "";
        "~:with$" 1;
    }
    map $http_x_request_id $aihub_request_id {
        default $request_id;
        "~^[A-Za-z0-9._-]{1,64}$" $http_x_request_id;
    }"""
"""What the locations ask of a request. `aihub_batch` and `aihub_large`: what is counted for `BOUNDED`."""


# What is put into the page is not in a copy that the browser kept, and no text can be put into what is compressed.
_ATTENTION = """\
            proxy_set_header If-None-Match "";
            proxy_set_header If-Modified-Since "";
            proxy_set_header Accept-Encoding "";
            sub_filter '<head>' '<head><script>%s</script>';"""


def attention(idle_seconds: float) -> str:
    """Puts `attention.js` into MLflow's page, on one line. The page is taken for left after the time in which the server falls asleep.
    Where it never does, nothing is put in.
    """
    if not idle_seconds:
        return ""
    script = (Path(__file__).parent / "attention.js").read_text(encoding="utf-8")
    lines = [line.strip() for line in script.splitlines() if not line.startswith("//")]
    return _ATTENTION % " ".join(lines).replace("AWAY_MS", str(round(idle_seconds * 1000)))
