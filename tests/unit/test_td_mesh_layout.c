/* SPDX-License-Identifier: BSD-2-Clause */

/* What the compiler of the programs laid out, as their BTF says, is what ours did. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <bpf/btf.h>

#include "td_mesh.h"

/* clang-format off */
#define SIZE(type)            { #type, NULL, sizeof(struct type) }
#define MEMBER(type, member)  { #type, #member, offsetof(struct type, member) }
/* clang-format on */


static const struct {
    const char  *type;
    const char  *member;
    size_t       value;
} layout[] = {
    SIZE(tg_addr),
    MEMBER(tg_addr, w),
    SIZE(tg_who),
    MEMBER(tg_who, tenant),
    MEMBER(tg_who, service),
    SIZE(tg_settings),
    MEMBER(tg_settings, layout),
    MEMBER(tg_settings, epoch),
    MEMBER(tg_settings, levels),
    MEMBER(tg_settings, unknown),
    MEMBER(tg_settings, event_interval),
    MEMBER(tg_settings, event_window),
    SIZE(tg_workload),
    MEMBER(tg_workload, who),
    MEMBER(tg_workload, flags),
    MEMBER(tg_workload, reserved),
    MEMBER(tg_workload, cgroup),
    SIZE(tg_source),
    MEMBER(tg_source, cgroup),
    MEMBER(tg_source, addr),
    SIZE(tg_target),
    MEMBER(tg_target, addr),
    MEMBER(tg_target, port),
    MEMBER(tg_target, proto),
    MEMBER(tg_target, reserved),
    SIZE(tg_place),
    MEMBER(tg_place, who),
    MEMBER(tg_place, flags),
    MEMBER(tg_place, reserved),
    SIZE(tg_net),
    MEMBER(tg_net, prefix),
    MEMBER(tg_net, addr),
    SIZE(tg_service),
    MEMBER(tg_service, who),
    MEMBER(tg_service, flags),
    MEMBER(tg_service, first),
    MEMBER(tg_service, count),
    MEMBER(tg_service, set),
    MEMBER(tg_service, target),
    SIZE(tg_endpoint),
    MEMBER(tg_endpoint, addr),
    MEMBER(tg_endpoint, port),
    MEMBER(tg_endpoint, reserved),
    SIZE(tg_slot),
    MEMBER(tg_slot, set),
    MEMBER(tg_slot, own),
    MEMBER(tg_slot, endpoint),
    SIZE(tg_tenant),
    MEMBER(tg_tenant, set),
    MEMBER(tg_tenant, defaults),
    MEMBER(tg_tenant, shapes),
    MEMBER(tg_tenant, digest),
    MEMBER(tg_tenant, reserved),
    MEMBER(tg_tenant, tenant),
    SIZE(tg_rule_key),
    MEMBER(tg_rule_key, set),
    MEMBER(tg_rule_key, subject),
    MEMBER(tg_rule_key, peer),
    MEMBER(tg_rule_key, port),
    MEMBER(tg_rule_key, proto),
    MEMBER(tg_rule_key, kind),
    SIZE(tg_rule),
    MEMBER(tg_rule, rank),
    MEMBER(tg_rule, number),
    SIZE(tg_cidr),
    MEMBER(tg_cidr, prefix),
    MEMBER(tg_cidr, set),
    MEMBER(tg_cidr, addr),
    SIZE(tg_limit),
    MEMBER(tg_limit, rate),
    MEMBER(tg_limit, burst),
    MEMBER(tg_limit, open),
    MEMBER(tg_limit, reserved),
    SIZE(tg_meter),
    MEMBER(tg_meter, due),
    MEMBER(tg_meter, open),
    SIZE(tg_tuple),
    MEMBER(tg_tuple, src),
    MEMBER(tg_tuple, dst),
    MEMBER(tg_tuple, sport),
    MEMBER(tg_tuple, dport),
    MEMBER(tg_tuple, proto),
    MEMBER(tg_tuple, reserved),
    MEMBER(tg_tuple, netns),
    SIZE(tg_flow),
    MEMBER(tg_flow, src),
    MEMBER(tg_flow, time_ns),
    MEMBER(tg_flow, epoch),
    MEMBER(tg_flow, local),
    SIZE(tg_peer_key),
    MEMBER(tg_peer_key, cookie),
    MEMBER(tg_peer_key, target),
    MEMBER(tg_peer_key, reserved),
    SIZE(tg_socket),
    MEMBER(tg_socket, pass_in),
    MEMBER(tg_socket, pass_out),
    MEMBER(tg_socket, netns),
    MEMBER(tg_socket, cgroup),
    MEMBER(tg_socket, opened_ns),
    MEMBER(tg_socket, self),
    MEMBER(tg_socket, peer),
    MEMBER(tg_socket, far),
    MEMBER(tg_socket, virt),
    MEMBER(tg_socket, far_flags),
    MEMBER(tg_socket, self_flags),
    MEMBER(tg_socket, epoch),
    MEMBER(tg_socket, placed),
    MEMBER(tg_socket, metered),
    MEMBER(tg_socket, counted),
    MEMBER(tg_socket, dport),
    MEMBER(tg_socket, role),
    MEMBER(tg_socket, flags),
    MEMBER(tg_socket, reason),
    SIZE(tg_verdict),
    MEMBER(tg_verdict, turn),
    MEMBER(tg_verdict, epoch),
    MEMBER(tg_verdict, src),
    MEMBER(tg_verdict, dst),
    MEMBER(tg_verdict, dport),
    MEMBER(tg_verdict, proto),
    MEMBER(tg_verdict, at_source),
    MEMBER(tg_verdict, reason),
    MEMBER(tg_verdict, rule),
    SIZE(tg_arrival),
    MEMBER(tg_arrival, turn),
    MEMBER(tg_arrival, epoch),
    MEMBER(tg_arrival, tuple),
    MEMBER(tg_arrival, self),
    MEMBER(tg_arrival, peer),
    MEMBER(tg_arrival, reason),
    SIZE(tg_departure),
    MEMBER(tg_departure, turn),
    MEMBER(tg_departure, epoch),
    MEMBER(tg_departure, cgroup),
    MEMBER(tg_departure, self),
    MEMBER(tg_departure, addr),
    SIZE(tg_event),
    MEMBER(tg_event, time_ns),
    MEMBER(tg_event, cookie),
    MEMBER(tg_event, cgroup),
    MEMBER(tg_event, src),
    MEMBER(tg_event, dst),
    MEMBER(tg_event, from),
    MEMBER(tg_event, to),
    MEMBER(tg_event, virt),
    MEMBER(tg_event, bytes_out),
    MEMBER(tg_event, bytes_in),
    MEMBER(tg_event, duration_ns),
    MEMBER(tg_event, srtt_us),
    MEMBER(tg_event, retransmits),
    MEMBER(tg_event, lost),
    MEMBER(tg_event, rule),
    MEMBER(tg_event, reason),
    MEMBER(tg_event, type),
    MEMBER(tg_event, hook),
    MEMBER(tg_event, passive),
    MEMBER(tg_event, reserved),
    SIZE(tg_bucket_key),
    MEMBER(tg_bucket_key, tenant),
    MEMBER(tg_bucket_key, class),
    SIZE(tg_bucket),
    MEMBER(tg_bucket, due),
    MEMBER(tg_bucket, lost),
};


/* The offset of a member, or the size of the type; -1 for none of that name. */
static long
of_btf(const struct btf *btf, const char *type, const char *member)
{
    int                       id;
    uint16_t                  i;
    const struct btf_type    *found;
    const struct btf_member  *members;

    id = btf__find_by_name_kind(btf, type, BTF_KIND_STRUCT);
    if (id < 0) {
        return -1;
    }

    found = btf__type_by_id(btf, (uint32_t) id);
    if (member == NULL) {
        return found->size;
    }

    members = btf_members(found);
    for (i = 0; i < btf_vlen(found); i++) {
        if (strcmp(btf__name_by_offset(btf, members[i].name_off), member) == 0) {
            return btf_member_bit_offset(found, i) / 8;
        }
    }

    return -1;
}


static void
test_layout(void **state)
{
    char         path[512];
    size_t       i;
    struct btf  *btf;

    (void) state;

    snprintf(path, sizeof(path), "%s/bpf/tg_mesh.o",
             getenv("TIERGATE_BUILD") ? getenv("TIERGATE_BUILD") : "build");
    btf = btf__parse_elf(path, NULL);
    assert_non_null(btf);

    for (i = 0; i < sizeof(layout) / sizeof(layout[0]); i++) {
        if (of_btf(btf, layout[i].type, layout[i].member) != (long) layout[i].value) {
            fail_msg("%s.%s", layout[i].type,
                     layout[i].member ? layout[i].member : "(size)");
        }
    }

    btf__free(btf);
}


static void
test_reasons(void **state)
{
    (void) state;

    assert_string_equal(td_mesh_reason(TG_WHY_DENY_RULE), "denied by a policy");
    assert_null(td_mesh_reason(TG_REASON_LIMIT - 1));
    assert_true(tg_denied(TG_WHY_DENY_RULE));
    assert_false(tg_denied(TG_WHY_CLOSED));
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_reasons),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
