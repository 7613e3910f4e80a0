/* SPDX-License-Identifier: BSD-2-Clause */

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include <netinet/in.h>

#include "td_flow_record.h"


static const char *const  td_flow_types[] = {
    [TG_EVENT_CONNECT] = "open",
    [TG_EVENT_ACCEPT] = "accept",
    [TG_EVENT_CLOSE] = "close",
    [TG_EVENT_FAILED] = "failed",
    [TG_EVENT_DENY] = "denied",
};


int
td_flow_at_source(const struct tg_event *event)
{
    switch (event->type) {

    case TG_EVENT_ACCEPT:
        return 0;

    case TG_EVENT_CLOSE:
    case TG_EVENT_FAILED:
        return !event->passive;

    case TG_EVENT_DENY:
        return event->hook != TG_AT_INGRESS;

    default:
        return 1;
    }
}


int
td_flow_counts(const struct tg_event *event)
{
    return event->type == TG_EVENT_DENY || event->type == TG_EVENT_FAILED
           || td_flow_at_source(event) == (event->src.tenant != 0);
}


uint32_t
td_flow_tenant(const struct tg_event *event)
{
    uint32_t  own, other;

    own = td_flow_at_source(event) ? event->src.tenant : event->dst.tenant;
    other = td_flow_at_source(event) ? event->dst.tenant : event->src.tenant;

    return own != 0 ? own : other;
}


const char *
td_flow_type(const struct tg_event *event)
{
    return event->type < sizeof(td_flow_types) / sizeof(td_flow_types[0])
           ? td_flow_types[event->type] : NULL;
}


static void
td_flow_text(tg_text_t *text, const char *s)
{
    tg_text_str(text, ",");

    if (s == NULL) {
        tg_text_str(text, "null");
    } else {
        tg_text_json(text, s, strlen(s));
    }
}


static void
td_flow_place(tg_text_t *text, const struct tg_target *target)
{
    char             name[INET6_ADDRSTRLEN];
    struct in6_addr  addr;

    memcpy(&addr, &target->addr, sizeof(addr));

    if (IN6_IS_ADDR_UNSPECIFIED(&addr)) {
        tg_text_str(text, ",null,null");
        return;
    }

    if (IN6_IS_ADDR_V4MAPPED(&addr)) {
        inet_ntop(AF_INET, &addr.s6_addr[12], name, sizeof(name));
    } else {
        inet_ntop(AF_INET6, &addr, name, sizeof(name));
    }

    tg_text_printf(text, ",\"%s\",%u", name, target->port);
}


static void
td_flow_protocol(tg_text_t *text, uint8_t proto)
{
    switch (proto) {

    case 0:
        tg_text_str(text, ",null");
        break;

    case IPPROTO_TCP:
        tg_text_str(text, ",\"tcp\"");
        break;

    case IPPROTO_UDP:
        tg_text_str(text, ",\"udp\"");
        break;

    default:
        tg_text_printf(text, ",\"%u\"", proto);
    }
}


void
td_flow_row(tg_text_t *text, const td_flow_record_t *record)
{
    const struct tg_event  *event;

    event = record->event;

    tg_text_printf(text, "[%lld,\"%s\",\"%s\"", (long long) record->time_ms,
                   td_flow_type(event),
                   td_flow_at_source(event) ? "source" : "destination");
    td_flow_protocol(text, event->to.proto != 0 ? event->to.proto
                                                : event->from.proto);
    td_flow_text(text, record->source.tenant);
    td_flow_text(text, record->source.service);
    td_flow_place(text, &event->from);
    td_flow_text(text, record->destination.tenant);
    td_flow_text(text, record->destination.service);
    td_flow_place(text, &event->to);
    td_flow_place(text, &event->virt);
    tg_text_printf(text, ",%u", event->reason);
    td_flow_text(text, record->policy_tenant);
    td_flow_text(text, record->policy);

    if (event->type == TG_EVENT_CLOSE || event->type == TG_EVENT_FAILED) {
        tg_text_printf(text, ",%llu,%llu,%u,%u,%llu",
                       (unsigned long long) event->bytes_out,
                       (unsigned long long) event->bytes_in, event->srtt_us,
                       event->retransmits,
                       (unsigned long long) event->duration_ns / 1000);
    } else {
        tg_text_str(text, ",null,null,null,null,null");
    }

    tg_text_printf(text, ",%llu,%llu,", (unsigned long long) event->cgroup,
                   (unsigned long long) event->cookie);
}
