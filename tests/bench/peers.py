# SPDX-License-Identifier: BSD-2-Clause
"""The references of the same run: plain nginx (the floor), and HAProxy doing the same job.

Plain nginx has what the gateway's configuration (tests/integration/support/nginx.py, bed.py) has of nginx itself."""

import measure
from support import process

PLAIN = """\
worker_processes 1;
daemon off;
pid {dir}/plain.pid;
error_log {dir}/plain-error.log notice;
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
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Connection "";
        }}
    }}
}}
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


def plain(bed):
    """Plain nginx: its port and the worker's pid."""
    port, directory = measure.free_port(), bed.dir
    (directory / "plain-tmp").mkdir(exist_ok=True)
    path = directory / "plain.conf"
    path.write_text(PLAIN.format(dir=directory, port=port, backend=bed.backend_port))
    master = bed.processes.spawn("plain", [process.NGINX, "-p", f"{directory}/", "-c", str(path)])
    measure.wait_port(port)
    worker = measure.children(master.pid)[0]
    measure.pin(worker, measure.GATEWAY_CORE)
    return port, worker


def haproxy(bed, alg, key, issuer, tenants):
    """HAProxy with one algorithm (it takes one key a rule): its port and pid."""
    port, directory = measure.free_port(), bed.dir
    (directory / "hosts.map").write_text("".join(f"t{i}.bench.example t{i}\n" for i in tenants))
    path = directory / f"haproxy-{alg}.cfg"
    path.write_text(HAPROXY.format(dir=directory, port=port, backend=bed.backend_port, alg=alg, key=key, issuer=issuer))
    daemon = bed.processes.spawn(f"haproxy-{alg}", ["haproxy", "-db", "-f", str(path)], core=measure.GATEWAY_CORE)
    measure.wait_port(port)
    return port, daemon.pid
