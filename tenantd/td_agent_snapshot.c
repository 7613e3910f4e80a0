/* SPDX-License-Identifier: BSD-2-Clause */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>
#include <openssl/evp.h>

#include "td_agent_apply.h"
#include "td_agent_snapshot.h"
#include "td_agent_store.h"
#include "td_agent_watch.h"
#include "td_log.h"
#include "td_pool.h"
#include "td_replace.h"
#include "tg_stream.h"
#include "tg_text.h"


#define TD_SNAPSHOT_SLACK  (1024 * 1024)    /* bytes that are never too many */
#define TD_SNAPSHOT_IDLE   60000            /* ms between bookmarks alone */
#define TD_SNAPSHOT_HEX    64

struct td_agent_snapshot_s {
    td_agent_t  *agent;
    int          fd;                        /* -1: nothing is written */
    EVP_MD_CTX  *digest;
    tg_text_t    batch;
    uint64_t     size;                      /* of the file */
    uint64_t     live;                      /* bytes of what is not superseded */
    uint64_t     revision;
    long         written;                   /* when, by td_now() */
    int          loading;
    char         registry[37];
    char         path[PATH_MAX];
};


td_agent_snapshot_t *
td_agent_snapshot_create(td_agent_t *agent)
{
    td_agent_snapshot_t  *snapshot;

    snapshot = calloc(1, sizeof(td_agent_snapshot_t));
    if (snapshot == NULL) {
        return NULL;
    }

    snapshot->agent = agent;
    snapshot->fd = -1;
    snapshot->digest = EVP_MD_CTX_new();
    snprintf(snapshot->path, sizeof(snapshot->path), "%s/registry.jsonl",
             agent->config->agent.state);

    if (snapshot->digest == NULL) {
        free(snapshot);
        return NULL;
    }

    return snapshot;
}


static void
td_snapshot_close(td_agent_snapshot_t *snapshot)
{
    if (snapshot->fd >= 0) {
        close(snapshot->fd);
        snapshot->fd = -1;
    }

    tg_text_reset(&snapshot->batch);
}


void
td_agent_snapshot_destroy(td_agent_snapshot_t *snapshot)
{
    if (snapshot == NULL) {
        return;
    }

    td_snapshot_close(snapshot);
    tg_text_free(&snapshot->batch);
    EVP_MD_CTX_free(snapshot->digest);
    free(snapshot);
}


/* The digest of all that went into ctx, in hex; ctx can go on. */
static int
td_snapshot_hex(const EVP_MD_CTX *ctx, char hex[TD_SNAPSHOT_HEX + 1])
{
    unsigned        i, n;
    EVP_MD_CTX     *copy;
    unsigned char   digest[EVP_MAX_MD_SIZE];

    copy = EVP_MD_CTX_new();

    if (copy == NULL || EVP_MD_CTX_copy_ex(copy, ctx) != 1
        || EVP_DigestFinal_ex(copy, digest, &n) != 1)
    {
        EVP_MD_CTX_free(copy);
        return -1;
    }

    EVP_MD_CTX_free(copy);

    for (i = 0; i < n; i++) {
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    }

    return 0;
}


/* Adds the digest's line to the batch. */
static int
td_snapshot_seal(td_agent_snapshot_t *snapshot)
{
    char        hex[TD_SNAPSHOT_HEX + 1];
    tg_text_t  *batch;

    batch = &snapshot->batch;

    if (batch->failed
        || EVP_DigestUpdate(snapshot->digest, batch->data, batch->len) != 1
        || td_snapshot_hex(snapshot->digest, hex) != 0)
    {
        return -1;
    }

    tg_text_printf(batch, "#%s\n", hex);

    return batch->failed ? -1 : 0;
}


/* Writes the batch at the end of a file. */
static int
td_snapshot_flush(td_agent_snapshot_t *snapshot, int fd)
{
    size_t   done;
    ssize_t  n;

    for (done = 0; done < snapshot->batch.len; done += (size_t) n) {
        n = write(fd, snapshot->batch.data + done, snapshot->batch.len - done);
        if (n < 0) {
            return -1;
        }
    }

    snapshot->size += done;
    tg_text_reset(&snapshot->batch);

    return 0;
}


static void
td_snapshot_add(td_agent_snapshot_t *snapshot, const td_doc_t *doc)
{
    tg_text_add(&snapshot->batch, doc->line, doc->len);
    tg_text_str(&snapshot->batch, "\n");
}


void
td_agent_snapshot_put(td_agent_snapshot_t *snapshot, const td_doc_t *doc)
{
    if (snapshot->fd >= 0) {
        td_snapshot_add(snapshot, doc);
        snapshot->live += doc->len;
    }
}


void
td_agent_snapshot_delete(td_agent_snapshot_t *snapshot, const td_doc_t *doc)
{
    if (snapshot->fd >= 0) {
        tg_text_printf(&snapshot->batch, "{\"type\":\"DELETE\",\"kind\":\"%s\",\"name\":",
                       td_doc_kind_name(doc->kind));
        tg_text_json(&snapshot->batch, doc->name, strlen(doc->name));
        tg_text_printf(&snapshot->batch, ",\"id\":%lld,\"revision\":%llu}\n",
                       (long long) doc->id, (unsigned long long) doc->revision);
    }
}


static void
td_snapshot_bookmark(td_agent_snapshot_t *snapshot, uint64_t revision)
{
    tg_text_printf(&snapshot->batch, "{\"type\":\"BOOKMARK\",\"revision\":%llu}\n",
                   (unsigned long long) revision);
    snapshot->revision = revision;
    snapshot->written = td_now();
}


void
td_agent_snapshot_bookmark(td_agent_snapshot_t *snapshot, uint64_t revision,
    int changes)
{
    if (snapshot->fd < 0
        || (!changes && td_now() - snapshot->written < TD_SNAPSHOT_IDLE))
    {
        return;
    }

    td_snapshot_bookmark(snapshot, revision);

    if (snapshot->size > 2 * snapshot->live + TD_SNAPSHOT_SLACK) {
        td_agent_snapshot_write(snapshot, snapshot->registry, revision);

    } else if (td_snapshot_seal(snapshot) != 0
               || td_snapshot_flush(snapshot, snapshot->fd) != 0)
    {
        td_log(TD_LOG_ERR, "snapshot", "cannot write %s: %m; it stays as it is",
               snapshot->path);
        td_snapshot_close(snapshot);
    }
}


static void
td_snapshot_add_one(td_doc_t *doc, void *data)
{
    td_agent_snapshot_t  *snapshot = data;

    td_snapshot_add(snapshot, doc);
    snapshot->live += doc->len;
}


/* All of the store into a file; returns its descriptor, or -1 with errno. */
static int
td_snapshot_write_new(td_agent_snapshot_t *snapshot, const char *path,
    uint64_t revision)
{
    int  fd, kind;

    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) {
        return -1;
    }

    tg_text_reset(&snapshot->batch);
    EVP_DigestInit_ex(snapshot->digest, EVP_sha256(), NULL);
    snapshot->live = 0;
    snapshot->size = 0;

    tg_text_printf(&snapshot->batch, "{\"tiergate_mesh\":1,\"registry\":\"%s\",\"node\":",
                   snapshot->registry);
    tg_text_json(&snapshot->batch, snapshot->agent->node, strlen(snapshot->agent->node));
    tg_text_str(&snapshot->batch, "}\n");

    for (kind = TD_DOC_AGENT; kind < TD_DOC_KINDS; kind++) {
        td_agent_store_each(snapshot->agent->store, kind, td_snapshot_add_one, snapshot);
    }

    td_snapshot_bookmark(snapshot, revision);

    if (td_snapshot_seal(snapshot) != 0 || td_snapshot_flush(snapshot, fd) != 0) {
        close(fd);
        return -1;
    }

    return fd;
}


void
td_agent_snapshot_write(td_agent_snapshot_t *snapshot, const char *registry,
    uint64_t revision)
{
    int   fd;
    char  path[PATH_MAX + 8];

    if (snapshot->loading) {
        return;
    }

    if (registry != snapshot->registry) {
        snprintf(snapshot->registry, sizeof(snapshot->registry), "%s", registry);
    }

    td_snapshot_close(snapshot);
    snprintf(path, sizeof(path), "%s.new", snapshot->path);
    fd = td_snapshot_write_new(snapshot, path, revision);

    if (fd < 0 || td_replace(fd, path, snapshot->path) != 0) {
        td_log(TD_LOG_ERR, "snapshot", "cannot write %s: %m", path);

        if (fd >= 0) {
            close(fd);
        }

        return;
    }

    snapshot->fd = fd;

    /* What a batch has needed once is not kept for good. */
    tg_text_free(&snapshot->batch);
}


/* Reads the whole file; the caller's, with a NUL. */
static char *
td_snapshot_read(const char *path, size_t *len)
{
    int           fd;
    char         *text;
    ssize_t       n;
    struct stat   st;

    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)
        || (text = malloc((size_t) st.st_size + 1)) == NULL)
    {
        if (fd >= 0) {
            close(fd);
        }
        return NULL;
    }

    for (*len = 0; *len < (size_t) st.st_size; *len += (size_t) n) {
        n = read(fd, text + *len, (size_t) st.st_size - *len);
        if (n <= 0) {
            break;
        }
    }

    close(fd);
    text[*len] = '\0';

    return text;
}


/* Bytes up to the last digest, that must be right; 0: there is none. */
static size_t
td_snapshot_sound(const char *text, size_t len)
{
    char         hex[TD_SNAPSHOT_HEX + 1];
    size_t       good;
    EVP_MD_CTX  *ctx;
    const char  *line, *end;

    ctx = EVP_MD_CTX_new();
    good = 0;

    if (ctx == NULL || EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1) {
        EVP_MD_CTX_free(ctx);
        return 0;
    }

    for (line = text; line < text + len; line = end + 1) {
        end = memchr(line, '\n', (size_t) (text + len - line));
        if (end == NULL) {
            break;
        }

        if (line[0] != '#') {
            EVP_DigestUpdate(ctx, line, (size_t) (end + 1 - line));
            continue;
        }

        if (end - line != TD_SNAPSHOT_HEX + 1 || td_snapshot_hex(ctx, hex) != 0
            || memcmp(line + 1, hex, TD_SNAPSHOT_HEX) != 0)
        {
            break;
        }

        good = (size_t) (end + 1 - text);
    }

    EVP_MD_CTX_free(ctx);

    return good;
}


/* Takes the header; 0 with the rest of the file's first line behind *line. */
static int
td_snapshot_header(td_agent_snapshot_t *snapshot, const char *text, size_t len)
{
    json_t      *header;
    const char  *registry, *node;

    header = json_loadb(text, len, 0, NULL);
    registry = json_string_value(json_object_get(header, "registry"));
    node = json_string_value(json_object_get(header, "node"));

    if (json_integer_value(json_object_get(header, "tiergate_mesh")) != 1
        || registry == NULL || node == NULL
        || strcmp(node, snapshot->agent->node) != 0
        || tg_uuid_copy(snapshot->registry, registry, strlen(registry)) != 0)
    {
        json_decref(header);
        return -1;
    }

    json_decref(header);

    return 0;
}


/* Gives each line to the batch.  -1: one of them is no event. */
static int
td_snapshot_replay(td_agent_snapshot_t *snapshot, const char *line, const char *end)
{
    size_t              len;
    td_event_t          event;
    tg_error_t          err;
    td_agent_apply_t   *apply;
    td_event_status_e   status;

    apply = snapshot->agent->apply;

    for ( ; line < end; line += len + 1) {
        len = (size_t) ((const char *) memchr(line, '\n', (size_t) (end - line)) - line);

        if (line[0] == '#') {
            continue;
        }

        status = td_event_parse(line, len, &event, &err);

        if (status == TD_EVENT_BAD_LINE) {
            td_log(TD_LOG_ERR, "snapshot", "%s is refused: %s", snapshot->path,
                   err.message);
            return -1;
        }

        if (status == TD_EVENT_BAD_OBJECT) {
            td_apply_refuse(apply, &event, err.message);

        } else if (event.type == TD_EVENT_BOOKMARK) {
            snapshot->revision = event.revision;

        } else if (event.type == TD_EVENT_DELETE && event.kind != TD_DOC_NONE) {
            td_apply_delete(apply, event.kind, event.name, event.id);

        } else if (event.doc != NULL) {
            td_apply_put(apply, event.doc);
        }
    }

    return 0;
}


int
td_agent_snapshot_load(td_agent_snapshot_t *snapshot)
{
    int          rc;
    char        *text, *end;
    size_t       len, good;
    td_agent_t  *agent;

    agent = snapshot->agent;
    text = td_snapshot_read(snapshot->path, &len);

    if (text == NULL) {
        td_log(TD_LOG_NOTICE, "snapshot", "there is no %s: the registry is asked for "
               "everything", snapshot->path);
        return -1;
    }

    good = td_snapshot_sound(text, len);
    end = memchr(text, '\n', good);
    rc = -1;

    if (good == 0 || end == NULL
        || td_snapshot_header(snapshot, text, (size_t) (end - text)) != 0)
    {
        td_log(TD_LOG_ERR, "snapshot", "%s is not whole, or of another node: it is "
               "not used", snapshot->path);

    } else {
        rc = td_snapshot_replay(snapshot, end + 1, text + good);
    }

    if (rc == 0) {
        snapshot->loading = 1;
        td_apply_commit(agent->apply, snapshot->revision, 1, snapshot->registry);
        snapshot->loading = 0;
        td_agent_snapshot_write(snapshot, snapshot->registry, snapshot->revision);

    } else {
        td_apply_drop(agent->apply);
    }

    free(text);

    return rc;
}


const char *
td_agent_snapshot_registry(const td_agent_snapshot_t *snapshot)
{
    return snapshot->registry;
}
