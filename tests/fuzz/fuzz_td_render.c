/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Parameters in a template of nginx's configuration.  The first byte chooses the
 * variables that are allowed; the rest is the parameter, and once more a template
 * of its own.  Whatever the parameter: nginx reads it as one argument, or it is
 * refused.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../unit/render_reader.h"
#include "td_render.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static reader_t  reader;


static void
check(int condition)
{
    if (!condition) {
        abort();
    }
}


/* "first V second;" and "block V { }", with V the parameter. */
static void
check_argument(const char *text, const char *value, size_t len)
{
    reader.p = text;
    check(reader_next(&reader) == READER_DIRECTIVE && reader.words == 3);
    check(reader.len[1] == len && memcmp(reader.word[1], value, len) == 0);
    check(reader_next(&reader) == READER_BLOCK && reader.words == 2);
    check(reader.len[1] == len && memcmp(reader.word[1], value, len) == 0);
    check(reader_next(&reader) == READER_BLOCK_END);
    check(reader_next(&reader) == READER_END);
}


static void
render(const char *template, const json_t *parameters, const json_t *schema,
    const char *value, size_t len)
{
    tg_text_t           out;
    tg_error_t          err;
    td_render_values_t  values = { parameters, schema, NULL };

    tg_text_init(&out);

    if (td_render(&out, template, &values, &err) != 0) {
        check(err.message[0] != '\0');

    } else if (value != NULL) {
        tg_text_add(&out, "", 1);
        check_argument(out.data, value, len);
    }

    tg_text_free(&out);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char    *template;
    size_t   len;
    json_t  *parameters, *schema;
    static const char  fixed[] = "first {{v}} second;\nblock {{v}} {\n}\n";

    if (size == 0) {
        return 0;
    }

    parameters = json_object();
    json_object_set_new(parameters, "v",
                        json_stringn_nocheck((const char *) data + 1, size - 1));
    schema = json_loads(data[0] & 1
                        ? "{\"properties\":{\"v\":{\"variables\":true}}}"
                        : "{\"properties\":{\"v\":{\"variables\":true,"
                          "\"variable_names\":[\"a\"]}}}", 0, NULL);

    render(fixed, parameters, schema, (const char *) data + 1, size - 1);

    /* a template of any form */
    template = malloc(size);
    len = size - 1;
    memcpy(template, data + 1, len);
    template[len] = '\0';
    render(template, parameters, schema, NULL, 0);

    free(template);
    json_decref(parameters);
    json_decref(schema);

    return 0;
}
