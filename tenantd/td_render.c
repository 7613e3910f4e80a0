/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The template is read as nginx's ngx_conf_read_token() reads it, as far as is
 * needed to know where an argument begins: white space, ";", "{" and "}" separate,
 * a quote or "#" counts only where an argument could begin, a backslash takes the
 * next character with it.
 */

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "td_render.h"


#define TD_RENDER_MAX_NAME  64

typedef enum {
    TD_RENDER_BETWEEN,          /* an argument, a separator or a comment may begin */
    TD_RENDER_WORD,
    TD_RENDER_QUOTED,
    TD_RENDER_AFTER_QUOTED,     /* only a separator may follow */
    TD_RENDER_COMMENT
} td_render_state_e;

typedef struct {
    tg_text_t                 *out;
    const td_render_values_t  *values;
    tg_error_t                *err;
    td_render_state_e          state;
    char                       quote;
    int                        words;       /* of the directive, so far */
} td_render_t;


static int
td_render_is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}


static int
td_render_is_end(char c)
{
    return c == '\0' || c == ';' || c == '{' || td_render_is_space(c);
}


static size_t
td_render_name_len(const char *s)
{
    return strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                  "0123456789_-");
}


/* Whether the variable whose "$" is at s may be used, by the string's property. */
static int
td_render_variable(const char *s, size_t len, const json_t *property)
{
    int            brace;
    size_t         i, n;
    const json_t  *names, *name;

    if (!json_is_true(json_object_get(property, "variables"))) {
        return 0;
    }

    names = json_object_get(property, "variable_names");

    if (names == NULL) {
        return 1;
    }

    brace = len > 1 && s[1] == '{';
    s += 1 + brace;
    len -= 1 + (size_t) brace;

    for (n = 0; n < len && (isalnum((unsigned char) s[n]) || s[n] == '_'); n++) {
        /* void */
    }

    if (brace && (n == len || s[n] != '}')) {
        return 0;
    }

    json_array_foreach(names, i, name) {
        if (n > 0 && json_string_length(name) == n
            && memcmp(json_string_value(name), s, n) == 0)
        {
            return 1;
        }
    }

    return 0;
}


int
td_render_string(tg_text_t *out, const char *s, size_t len,
    const json_t *property, tg_error_t *err)
{
    size_t  i, n;

    if (len > TD_RENDER_MAX_STRING) {
        tg_error_set(err, "", "is longer than %d bytes", TD_RENDER_MAX_STRING);
        return -1;
    }

    for (i = 0; i < len; i += n) {
        n = tg_utf8_len(s + i, len - i);

        if (n == 0) {
            tg_error_set(err, "", "is not UTF-8");
            return -1;
        }

        if ((unsigned char) s[i] < 0x20 || s[i] == 0x7f) {
            tg_error_set(err, "", "has a control character");
            return -1;
        }

        if (s[i] == '$' && !td_render_variable(s + i, len - i, property)) {
            tg_error_set(err, "", "has a \"$\" that is not of a variable which "
                         "the plugin allows here");
            return -1;
        }
    }

    tg_text_str(out, "\"");

    for (i = 0; i < len; i++) {
        if (s[i] == '"' || s[i] == '\\') {
            tg_text_str(out, "\\");
        }
        tg_text_add(out, s + i, 1);
    }

    tg_text_str(out, "\"");

    return 0;
}


static int
td_render_real(tg_text_t *out, double value, tg_error_t *err)
{
    int    n;
    char   text[64];

    /* without an exponent, which nginx would not know */
    if (!(value > -1e15 && value < 1e15)) {
        tg_error_set(err, "", "is out of range");
        return -1;
    }

    n = snprintf(text, sizeof(text), "%.6f", value);

    while (text[n - 1] == '0') {
        n--;
    }

    if (text[n - 1] == '.') {
        n--;
    }

    tg_text_add(out, text, (size_t) n);

    return 0;
}


static int
td_render_scalar(tg_text_t *out, const json_t *value, const json_t *property,
    tg_error_t *err)
{
    switch (json_typeof(value)) {

    case JSON_STRING:
        return td_render_string(out, json_string_value(value),
                                json_string_length(value), property, err);

    case JSON_INTEGER:
        tg_text_printf(out, "%lld", (long long) json_integer_value(value));
        return 0;

    case JSON_REAL:
        return td_render_real(out, json_real_value(value), err);

    case JSON_TRUE:
    case JSON_FALSE:
        tg_text_str(out, json_is_true(value) ? "on" : "off");
        return 0;

    default:
        tg_error_set(err, "", "is neither string, number, boolean nor "
                     "a list of these");
        return -1;
    }
}


static int
td_render_value(td_render_t *r, const json_t *value, const json_t *property)
{
    size_t         i;
    const json_t  *item;

    if (!json_is_array(value)) {
        return td_render_scalar(r->out, value, property, r->err);
    }

    json_array_foreach(value, i, item) {
        if (i > 0) {
            tg_text_str(r->out, " ");
        }

        if (td_render_scalar(r->out, item, property, r->err) != 0) {
            return -1;
        }
    }

    return 0;
}


static int
td_render_parameter(td_render_t *r, const char *name)
{
    const json_t  *property, *value;

    property = json_object_get(json_object_get(r->values->schema, "properties"),
                               name);
    value = json_object_get(r->values->parameters, name);

    if (value == NULL) {
        value = json_object_get(property, "default");
    }

    if (value == NULL) {
        tg_error_set(r->err, "", "is missing, and has no default");

    } else if (td_render_value(r, value, property) == 0) {
        return 0;
    }

    tg_error_prefix(r->err, "/%s", name);

    return -1;
}


static int
td_render_block(td_render_t *r, const char *name)
{
    const td_render_block_t  *block;

    for (block = r->values->blocks;
         block != NULL && block->name != NULL;
         block++)
    {
        if (strcmp(block->name, name) == 0) {
            tg_text_str(r->out, block->text);
            return 0;
        }
    }

    tg_error_set(r->err, "", "the template has {{@%s}}, which is not known",
                 name);

    return -1;
}


/*
 * A place at p, behind its "{{".  Returns what is behind its "}}", or NULL.
 */
static const char *
td_render_place(td_render_t *r, const char *p)
{
    int     block, rc;
    char    name[TD_RENDER_MAX_NAME + 1];
    size_t  len;

    block = *p == '@';
    p += block;
    len = td_render_name_len(p);

    if (len == 0 || len > TD_RENDER_MAX_NAME
        || strncmp(p + len, "}}", 2) != 0)
    {
        tg_error_set(r->err, "", "the template has \"{{\" without a name and "
                     "\"}}\"");
        return NULL;
    }

    memcpy(name, p, len);
    name[len] = '\0';
    p += len + 2;

    if (r->state != TD_RENDER_BETWEEN || (!block && !td_render_is_end(*p))) {
        tg_error_set(r->err, "", "{{%s}} in the template is not a whole "
                     "argument", name);
        return NULL;
    }

    if (block != (r->words == 0)) {
        tg_error_set(r->err, "", block ? "{{@%s}} in the template is not where "
                                         "a directive begins"
                                       : "{{%s}} in the template is where a "
                                         "directive's name belongs", name);
        return NULL;
    }

    rc = block ? td_render_block(r, name) : td_render_parameter(r, name);

    if (!block) {
        r->words++;
        r->state = TD_RENDER_AFTER_QUOTED;
    }

    return rc == 0 ? p : NULL;
}


/* Between arguments, or behind a quoted one. */
static void
td_render_between(td_render_t *r, char c)
{
    switch (c) {

    case ';':
    case '{':
    case '}':
        r->words = 0;
        r->state = TD_RENDER_BETWEEN;
        break;

    case ' ':
    case '\t':
    case '\n':
    case '\r':
        r->state = TD_RENDER_BETWEEN;
        break;

    case '#':
        r->state = TD_RENDER_COMMENT;
        break;

    case '"':
    case '\'':
        r->words++;
        r->quote = c;
        r->state = TD_RENDER_QUOTED;
        break;

    default:
        r->words++;
        r->state = TD_RENDER_WORD;
    }
}


/* Follows one character, which is not escaped, of the template. */
static void
td_render_follow(td_render_t *r, char c)
{
    switch (r->state) {

    case TD_RENDER_BETWEEN:
    case TD_RENDER_AFTER_QUOTED:
        td_render_between(r, c);
        break;

    case TD_RENDER_WORD:
        if (td_render_is_space(c) || c == ';' || c == '{') {
            td_render_between(r, c);
        }
        break;

    case TD_RENDER_QUOTED:
        if (c == r->quote) {
            r->state = TD_RENDER_AFTER_QUOTED;
        }
        break;

    case TD_RENDER_COMMENT:
        if (c == '\n') {
            r->state = TD_RENDER_BETWEEN;
        }
        break;
    }
}


/* How many bytes of nginx's text at p belong together. */
static size_t
td_render_step(td_render_t *r, const char *p)
{
    if (*p == '\\' && p[1] != '\0' && r->state != TD_RENDER_COMMENT) {
        if (r->state != TD_RENDER_QUOTED && r->state != TD_RENDER_WORD) {
            r->words++;
            r->state = TD_RENDER_WORD;
        }
        return 2;
    }

    /* ${name} is a variable, whose brace opens no block */
    if (*p == '$' && p[1] == '{' && r->state != TD_RENDER_COMMENT) {
        td_render_follow(r, '$');
        return 2;
    }

    td_render_follow(r, *p);

    return 1;
}


/* Whether a place begins at p, were it one that is refused.  In quotes braces may be
 * nginx's own. */
static int
td_render_is_place(const td_render_t *r, const char *p)
{
    size_t  len;

    if (p[0] != '{' || p[1] != '{' || r->state == TD_RENDER_COMMENT) {
        return 0;
    }

    len = td_render_name_len(p + 2);

    return r->state != TD_RENDER_QUOTED
           || (len > 0 && strncmp(p + 2 + len, "}}", 2) == 0);
}


int
td_render(tg_text_t *out, const char *template,
    const td_render_values_t *values, tg_error_t *err)
{
    size_t       n;
    const char  *p;
    td_render_t  r = { out, values, err, TD_RENDER_BETWEEN, 0, 0 };

    memset(err, 0, sizeof(tg_error_t));
    p = template;

    while (*p != '\0') {
        if (td_render_is_place(&r, p)) {
            p = td_render_place(&r, p + 2);
            if (p == NULL) {
                return -1;
            }
            continue;
        }

        n = td_render_step(&r, p);
        tg_text_add(out, p, n);
        p += n;
    }

    if ((r.state != TD_RENDER_BETWEEN && r.state != TD_RENDER_COMMENT)
        || r.words != 0)
    {
        tg_error_set(err, "", "the template ends within a directive");
        return -1;
    }

    tg_text_str(out, "\n");

    if (out->failed) {
        tg_error_set(err, "", "out of memory");
        return -1;
    }

    return 0;
}
