# SPDX-License-Identifier: BSD-2-Clause
"""Cost of a request: plain nginx, HAProxy, and the gateway with each credential, cached, new and refused."""

import subprocess

import bed as beds
import measure
import peers
from measure import Target

TENANTS = 10_000
PLAIN = "plain nginx"
TOKENS = 4_096      # distinct ones; the cache of the "new" gateway holds far fewer


def tokens_file(path, keys, alg, numbers):
    return beds.write_requests(path, [(beds.host(i), "/orders/1", [f"Authorization: Bearer {keys.token(alg, i)}"])
                                      for i in numbers])


def refusal_files(bed):
    limited = beds.typical(TENANTS, bed.backend_port, limit=1)
    limited["quotas"][0]["window"] = limited["quotas"][1]["window"] = "day"
    bed.rest.call("POST", "/v1/tenants", limited)
    over = beds.requests_with_keys(bed.dir / "over.txt", [TENANTS])
    denied = beds.write_requests(bed.dir / "denied.txt", [
        (beds.host(i), "/orders/1", [f"X-API-Key: {beds.api_key(i + 1)}"]) for i in range(1000)])
    return over, denied


def targets(bed):
    keys = beds.Keys()
    bed.rest.call("PUT", "/v1/issuers/bench", {
        "issuer": beds.ISSUER, "audiences": ["api"], "algorithms": list(beds.ALGORITHMS), "consumer_claim": "sub",
        "jwks": keys.jwks(bed.seal)})
    bed.import_tenants(range(TENANTS))
    over, denied = refusal_files(bed)
    everyone, some = range(TENANTS), range(0, TENANTS, TENANTS // TOKENS)
    key_file = beds.requests_with_keys(bed.dir / "keys.txt", everyone)
    token_files = {alg: tokens_file(bed.dir / f"{alg}.txt", keys, alg, some) for alg in beds.ALGORITHMS}

    cached = bed.gateway("cached", http="tenant_token_cache 16384; tenant_auth_failures off;")
    new = bed.gateway("new", http="tenant_token_cache 16;")
    cached_worker, new_worker = (beds.core_of(g.workers[0]) for g in (cached, new))
    plain_port, plain_worker = peers.plain(bed)
    own = peers.own_means(bed, [(beds.host(i), f"t{i}", beds.api_key(i)) for i in everyone])
    bed.make_room()
    for alg in beds.ALGORITHMS:
        measure.send_each(cached.port, token_files[alg])

    found = [Target(PLAIN, plain_port, plain_worker, key_file),
             Target("tiergate, API key", cached.port, cached_worker, key_file),
             Target("nginx's own means, API key", *own, key_file)]
    for alg in beds.ALGORITHMS:
        found += [Target(f"{PLAIN}, {alg}", plain_port, plain_worker, token_files[alg]),
                  Target(f"tiergate, {alg} cached", cached.port, cached_worker, token_files[alg]),
                  Target(f"tiergate, {alg} new", new.port, new_worker, token_files[alg])]
    for alg in beds.ALGORITHMS:
        key = beds.SECRET
        if alg != "HS256":
            key = bed.dir / f"{alg}.pem"
            key.write_text(keys.pem(alg))
        port, pid = peers.haproxy(bed, alg, key, beds.ISSUER, everyone)
        found.append(Target(f"haproxy, {alg}", port, pid, token_files[alg]))
    refused = beds.write_requests(bed.dir / "refused.txt", [(beds.host(0), peers.REFUSED, [])])
    found.append(Target(f"{PLAIN}, return 429", plain_port, plain_worker, refused, "all"))
    found.append(Target("tiergate, 429 over quota", cached.port, cached_worker, over, "all"))
    found.append(Target("tiergate, 401 bad key", cached.port, cached_worker, denied, "all"))
    return found


def floor_of(name):
    """What is compared with: plain nginx that proxies the same requests."""
    alg = next((alg for alg in beds.ALGORITHMS if alg in name), None)
    return f"{PLAIN}, {alg}" if alg else PLAIN


def raw_us(alg):
    """CPU time of a verification by OpenSSL alone, on the gateway's core."""
    return int(subprocess.run(["taskset", "-c", str(measure.GATEWAY_CORE), measure.compiled("verify"), alg], check=True,
                              stdout=subprocess.PIPE, text=True).stdout) / 1000


def run(options):
    bed = beds.Bed("requests")
    try:
        backend = bed.backend()
        raw = {alg: [raw_us(alg)] for alg in beds.ALGORITHMS}
        results = bed.slices(targets(bed), options.turns, backend)
        for alg, found in raw.items():
            found.append(raw_us(alg))
    finally:
        bed.end()
    rows = []
    for name, found in results.items():
        floor = floor_of(name)
        cpu = measure.median(found, "cpu_us")
        alg = next((alg for alg in beds.ALGORITHMS if f"{alg} new" in name), None)
        over = cpu - measure.median(results[floor], "cpu_us")
        rows.append((name, f"{cpu:.1f}", f"{measure.ratio(results[floor], found, 'cpu_us'):.2f}",
                     f"{over:+.1f}", f"{over - min(raw[alg]):+.1f}" if alg else "", f"{measure.median(found, 'rate'):.0f}",
                     f"{measure.ratio(found, results[floor], 'rate'):.2f}",
                     f"{measure.median(found, 'p50'):.0f}", f"{measure.median(found, 'p99'):.0f}"))
    measure.table(f"Requests: {TENANTS} tenants at random, medians of {options.turns} interleaved slices of {measure.SLICE_MS} ms",
                  ("target", "CPU us", "plain/CPU", "over plain us", "over OpenSSL", "req/s", "of plain", "p50 us", "p99 us"), rows)
    measure.table("One verification by OpenSSL alone, before and after", ("algorithm", "CPU us", "and"),
                  [(alg, *(f"{us:.1f}" for us in found)) for alg, found in raw.items()])
