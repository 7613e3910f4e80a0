/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Metrics by pairs of services, of bounded number: pairs that come when there is no
 * more room count together, as "other".
 */

#ifndef TD_FLOW_PAIRS_H
#define TD_FLOW_PAIRS_H

#include "td_flow_record.h"

typedef struct td_flow_pairs_s  td_flow_pairs_t;

/* NULL: no memory. */
td_flow_pairs_t *td_flow_pairs_create(size_t most);
void td_flow_pairs_destroy(td_flow_pairs_t *pairs);

/* Counts a record; those that td_flow_counts() says no to are passed over. */
void td_flow_pairs_add(td_flow_pairs_t *pairs, const td_flow_record_t *record);

/* Pairs with metrics of their own. */
size_t td_flow_pairs_count(const td_flow_pairs_t *pairs);

/* Adds the metrics in Prometheus' text format. */
void td_flow_pairs_write(td_flow_pairs_t *pairs, tg_text_t *text);

#endif /* TD_FLOW_PAIRS_H */
