/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Requests against blocks, sound and damaged ones: what tg_block_check() lets
 * through must be safe to match against.
 *
 * Input: one byte n, then n times { offset (2 bytes), value (4 bytes) } to put
 * into a block; then lines: path, host, methods' bit as a digit, "name=value"
 * headers.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tg_compile.h"
#include "tg_match.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char  document[] =
    "{\"name\":\"t\",\"id\":1,\"revision\":1,\"state\":\"active\","
    "\"hosts\":[\"a.example\",\"*.b.example\"],\"issuers\":[],\"api_keys\":[],"
    "\"upstreams\":[{\"id\":1,\"name\":\"u\",\"endpoints\":[]}],\"routes\":["
    "{\"id\":1,\"name\":\"e\",\"match\":{\"path\":{\"type\":\"exact\","
    "\"value\":\"/a/b\"},\"methods\":[\"GET\"]},"
    "\"backends\":[{\"upstream\":\"u\",\"weight\":1}]},"
    "{\"id\":2,\"name\":\"r\",\"match\":{\"path\":{\"type\":\"regex\","
    "\"value\":\"/(a|b)+/[0-9]*\"},\"headers\":[{\"name\":\"x\","
    "\"type\":\"regex\",\"value\":\"[a-z]+\"},{\"name\":\"y\",\"value\":\"1\"}]},"
    "\"backends\":[{\"upstream\":\"u\",\"weight\":1}]},"
    "{\"id\":3,\"name\":\"p\",\"match\":{\"path\":{\"type\":\"prefix\","
    "\"value\":\"/a\"},\"hosts\":[\"*.b.example\"]},"
    "\"backends\":[{\"upstream\":\"u\",\"weight\":1}]},"
    "{\"id\":4,\"name\":\"s\",\"match\":{\"path\":{\"type\":\"prefix\","
    "\"value\":\"/\"},\"methods\":[\"PUT\"]},"
    "\"backends\":[{\"upstream\":\"u\",\"weight\":1}]}],\"quotas\":[]}";

typedef struct {
    const char  *p;
    const char  *end;
} lines_t;


static const char *
next_line(lines_t *lines, size_t *len)
{
    const char  *line, *newline;

    line = lines->p;

    if (line == lines->end) {
        *len = 0;
        return line;
    }

    newline = memchr(line, '\n', (size_t) (lines->end - line));
    *len = (size_t) ((newline != NULL ? newline : lines->end) - line);
    lines->p = newline != NULL ? newline + 1 : lines->end;

    return line;
}


static int
header(void *data, const char *name, size_t name_len, const char **value,
    size_t *value_len)
{
    size_t       len;
    lines_t      lines = *(lines_t *) data;
    const char  *line;

    while (lines.p != lines.end) {
        line = next_line(&lines, &len);

        if (len > name_len && line[name_len] == '='
            && memcmp(line, name, name_len) == 0)
        {
            *value = line + name_len + 1;
            *value_len = len - name_len - 1;
            return 1;
        }
    }

    return 0;
}


static void
match(const tg_block_t *block, const uint8_t *data, size_t size)
{
    int                 rc;
    size_t              len;
    lines_t             lines;
    const char         *line;
    tg_match_result_t   result;
    tg_match_request_t  request;

    lines.p = (const char *) data;
    lines.end = lines.p + size;

    request.path = next_line(&lines, &request.path_len);
    request.host = next_line(&lines, &request.host_len);
    line = next_line(&lines, &len);
    request.method = len > 0 ? 1u << (line[0] & 7) : TG_METHOD_GET;
    request.header = header;
    request.data = &lines;

    rc = tg_match_route(block, &request, &result);

    if (rc < TG_MATCH_ERROR || rc >= (int) block->routes.n
        || (rc == TG_MATCH_METHOD && result.allowed == 0)
        || (rc == TG_MATCH_NONE && result.allowed != 0))
    {
        abort();
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t              n, offset;
    tg_block_t         *damaged;
    static tg_block_t  *block;

    if (block == NULL) {
        block = tg_compile(document, sizeof(document) - 1, TG_KIND_TENANT, NULL,
                           NULL);

        if (block == NULL) {
            abort();
        }
    }

    if (size == 0 || size < 1 + (size_t) data[0] * 6) {
        return 0;
    }

    damaged = malloc(block->size);

    if (damaged == NULL) {
        abort();
    }

    memcpy(damaged, block, block->size);
    n = data[0];
    data++;
    size--;

    for (size_t i = 0; i < n; i++, data += 6, size -= 6) {
        offset = ((size_t) data[0] << 8 | data[1]) % (block->size - 3);
        memcpy((char *) damaged + offset, data + 2, 4);
    }

    if (tg_block_check(damaged, block->size)) {
        match(damaged, data, size);
    }

    free(damaged);

    return 0;
}
