/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What is in force, on disk, so that a node starts without tenantd: STATE/registry.jsonl.
 *
 *     {"tiergate_mesh":1,"registry":"UUID","node":"a"}
 *     {"type":"PUT",...}            lines of the stream, byte for byte
 *     {"type":"BOOKMARK",...}
 *     #9f2c…                        SHA-256 of all above it, in hex
 *
 *  1. Only a digest makes what is above it valid: a torn file is good up to its last
 *     one, if that is right.
 *  2. It grows by a batch at a time, and is written anew when more than half of it
 *     is superseded.
 *  3. The digest guards against torn and rotten files; each line is checked as if it
 *     came from the network.
 */

#ifndef TD_AGENT_SNAPSHOT_H
#define TD_AGENT_SNAPSHOT_H

#include "td_agent.h"
#include "td_agent_document.h"

typedef struct td_agent_snapshot_s  td_agent_snapshot_t;

/* NULL: no memory. */
td_agent_snapshot_t *td_agent_snapshot_create(td_agent_t *agent);
void td_agent_snapshot_destroy(td_agent_snapshot_t *snapshot);

/* Reads the file and applies it as a list.  0; -1 after a line in the log: there is
 * none that can be used. */
int td_agent_snapshot_load(td_agent_snapshot_t *snapshot);

/* Of which registry it is; "": none. */
const char *td_agent_snapshot_registry(const td_agent_snapshot_t *snapshot);

/* Of the batch that is applied; its BOOKMARK writes it.  changes: there were any. */
void td_agent_snapshot_put(td_agent_snapshot_t *snapshot, const td_doc_t *doc);
void td_agent_snapshot_delete(td_agent_snapshot_t *snapshot, const td_doc_t *doc);
void td_agent_snapshot_bookmark(td_agent_snapshot_t *snapshot, uint64_t revision,
    int changes);

/* Writes all that is in the store, of that registry. */
void td_agent_snapshot_write(td_agent_snapshot_t *snapshot, const char *registry,
    uint64_t revision);

#endif /* TD_AGENT_SNAPSHOT_H */
