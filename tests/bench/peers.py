# SPDX-License-Identifier: BSD-2-Clause
"""The references of the same run: plain nginx (the floor), and HAProxy doing the same job.

Plain nginx has what the gateway's configuration (tests/integration/support/nginx.py, bed.py) has of nginx itself."""

import measure
from support import process

PLAIN = """\
worker_processes 1;
daemon off;
pid {dir}/{name}.pid;
error_log {dir}/{name}-error.log notice;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    lingering_close off;
    keepalive_requests 1000000;
    client_body_temp_path {dir}/plain-tmp;
    proxy_temp_path {dir}/plain-tmp;
    fastcgi_temp_path {dir}/plain-tmp;
    uwsgi_temp_path {dir}/plain-tmp;
    scgi_temp_path {dir}/plain-tmp;
    upstream backend {{ server 127.0.0.1:{backend}; keepalive 256; }}
{http}    server {{
        listen 127.0.0.1:{port};
{server}        location / {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Connection "";
{location}        }}
    }}
}}
"""

# What nginx itself has for the job: maps of hosts and keys, a rate for each host, headers about it.  No quota is
# changed without a reload, none is exact, nothing is counted per tenant.
OWN_MEANS = """\
    map_hash_max_size 65536;
    map_hash_bucket_size 256;
    map $host $tenant {{ include {dir}/own-hosts.map; }}
    map $host:$http_x_api_key $consumer {{ include {dir}/own-keys.map; }}
    limit_req_zone $tenant zone=tenants:64m rate=60000r/s;
"""

OWN_SERVER = """\
        if ($consumer = "") {{ return 401; }}
        limit_req zone=tenants burst=1000000 nodelay;
        add_header RateLimit-Policy '"requests";q=1000000;w=60' always;
        add_header RateLimit '"requests";r=999999;t=1' always;
"""

HAPROXY = """\
global
    nbthread 1
    maxconn 8192
    tune.bufsize 16384
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend in
    bind 127.0.0.1:{port}
    http-request set-var(txn.tenant) req.hdr(host),lower,map_str({dir}/hosts.map)
    http-request deny deny_status 404 unless {{ var(txn.tenant) -m found }}
    http-request set-var(txn.bearer) http_auth_bearer
    http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')
    http-request deny deny_status 401 unless {{ var(txn.alg) -m str {alg} }}
    http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_payload_query('$.iss') -m str {issuer} }}
    http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int')
    http-request set-var(txn.now) date()
    http-request deny deny_status 401 if {{ var(txn.exp),sub(txn.now) -m int lt 0 }}
    http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_verify(txn.alg,"{key}") 1 }}
    http-request track-sc0 var(txn.tenant) table limits
    http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 1000000 }}
    http-request set-header X-Tenant %[var(txn.tenant)]
    default_backend service
backend limits
    stick-table type string len 63 size 200k expire 60s store http_req_rate(60s)
backend service
    http-reuse always
    server one 127.0.0.1:{backend}
"""


OWN_LOCATION = """\
            proxy_set_header X-Tenant $tenant;
            proxy_set_header X-Consumer $consumer;
            proxy_set_header X-Request-Id $request_id;
"""


def start(bed, name, **more):
    """An nginx without the module: its port and the worker's pid."""
    port, directory = measure.free_port(), bed.dir
    (directory / "plain-tmp").mkdir(exist_ok=True)
    path = directory / f"{name}.conf"
    path.write_text(PLAIN.format(dir=directory, name=name, port=port, backend=bed.backend_port,
                                 **{"http": "", "server": "", "location": "", **more}))
    master = bed.processes.spawn(name, [process.NGINX, "-p", f"{directory}/", "-c", str(path)])
    measure.wait_port(port)
    worker = measure.until(lambda: measure.children(master.pid), f"the worker of {name}")[0]
    measure.pin(worker, measure.GATEWAY_CORE)
    return port, worker


# An answer of nginx's own: the floor of a refusal.
REFUSED = "/refused"
PLAIN_SERVER = f"""\
        location = {REFUSED} {{ return 429; }}
"""


def plain(bed):
    """Plain nginx."""
    return start(bed, "plain", server=PLAIN_SERVER)


def own_means(bed, tenants):
    """nginx that does what it can of the job; tenants: of (host, name, key)."""
    directory = bed.dir
    (directory / "own-hosts.map").write_text("".join(f"{host} {name};\n" for host, name, _ in tenants))
    (directory / "own-keys.map").write_text("".join(f"{host}:{key} mobile;\n" for host, _, key in tenants))
    return start(bed, "own", http=OWN_MEANS.format(dir=directory), server=OWN_SERVER.format(), location=OWN_LOCATION)


def haproxy(bed, alg, key, issuer, tenants):
    """HAProxy with one algorithm (it takes one key a rule): its port and pid."""
    port, directory = measure.free_port(), bed.dir
    (directory / "hosts.map").write_text("".join(f"t{i}.bench.example t{i}\n" for i in tenants))
    path = directory / f"haproxy-{alg}.cfg"
    path.write_text(HAPROXY.format(dir=directory, port=port, backend=bed.backend_port, alg=alg, key=key, issuer=issuer))
    daemon = bed.processes.spawn(f"haproxy-{alg}", ["haproxy", "-db", "-f", str(path)], core=measure.GATEWAY_CORE)
    measure.wait_port(port)
    return port, daemon.pid
