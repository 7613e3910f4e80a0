/* SPDX-License-Identifier: BSD-2-Clause */

#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ini.h>

#include "td_config.h"


/* inih reads lines into a buffer of 200 bytes and would take the rest of a
 * longer one for a line of its own. */
#define TD_CONFIG_LINE  199

typedef struct {
    FILE         *file;
    char        **text;         /* of the file; NULL: not there */
    int           too_long;     /* number of the first line that is */
    int           lines;
    int           refused;      /* number of the first line with a bad option */
    tg_error_t   *err;
} td_config_file_t;


static long
td_config_find(const char *section, size_t section_len, const char *key,
    size_t key_len)
{
    size_t  i;

    for (i = 0; i < td_options_n; i++) {
        if (strlen(td_options[i].section) == section_len
            && strlen(td_options[i].key) == key_len
            && memcmp(td_options[i].section, section, section_len) == 0
            && memcmp(td_options[i].key, key, key_len) == 0)
        {
            return (long) i;
        }
    }

    return -1;
}


static char *
td_config_read_line(char *line, int size, void *data)
{
    size_t             n;
    td_config_file_t  *f = data;

    if (fgets(line, size, f->file) == NULL) {
        return NULL;
    }

    f->lines++;
    n = strlen(line);

    if (n == TD_CONFIG_LINE && line[n - 1] != '\n' && f->too_long == 0) {
        f->too_long = f->lines;
    }

    return line;
}


/* Of several errors the first is told. */
static int
td_config_refuse(td_config_file_t *f, const char *section, const char *key,
    const char *what)
{
    if (f->refused == 0) {
        f->refused = f->lines;
        tg_error_set(f->err, "", "\"%s\" in section [%s] %s", key, section,
                     what);
    }

    return 0;
}


/* inih's handler: returns 1, or 0 for an error. */
static int
td_config_set_from_file(void *data, const char *section, const char *key,
    const char *value)
{
    char              *joined;
    long               i;
    td_config_file_t  *f = data;

    i = td_config_find(section, strlen(section), key, strlen(key));

    if (i < 0) {
        return td_config_refuse(f, section, key, "is no option");
    }

    if (f->text[i] == NULL) {
        f->text[i] = strdup(value);
        return f->text[i] != NULL;
    }

    if (!td_options[i].type->list) {
        return td_config_refuse(f, section, key, "is given twice");
    }

    if (asprintf(&joined, "%s %s", f->text[i], value) < 0) {
        return 0;
    }

    free(f->text[i]);
    f->text[i] = joined;

    return 1;
}


static int
td_config_read_file(const char *path, char **text, tg_error_t *err)
{
    int               line;
    char              message[sizeof(err->message)];
    td_config_file_t  f = { .text = text, .err = err };

    f.file = fopen(path, "re");
    if (f.file == NULL) {
        tg_error_set(err, "", "cannot open \"%s\": %s", path, strerror(errno));
        return -1;
    }

    line = ini_parse_stream(td_config_read_line, &f, td_config_set_from_file,
                            &f);
    fclose(f.file);

    if (f.too_long != 0) {
        tg_error_set(err, "", "%s:%d: the line is longer than %d bytes; lists "
                     "may go on in indented lines", path, f.too_long,
                     TD_CONFIG_LINE);
        return -1;
    }

    if (line != 0) {
        memcpy(message, err->message, sizeof(message));
        tg_error_set(err, "", "%s:%d: %.150s", path, line,
                     line == f.refused ? message
                                       : "this is no \"key = value\"");
        return -1;
    }

    return 0;
}


static const char *
td_config_variable(const td_option_t *option, char *name, size_t size)
{
    char  *p;

    snprintf(name, size, "TIERGATE_%s_%s", option->section, option->key);

    for (p = name; *p != '\0'; p++) {
        *p = (char) toupper((unsigned char) *p);
    }

    return getenv(name);
}


/* "section.key=value" → the option's index; *value points behind the "=". */
static long
td_config_split_override(const char *override, const char **value)
{
    const char  *dot, *equals;

    equals = strchr(override, '=');
    dot = strchr(override, '.');

    if (dot == NULL || equals == NULL || dot > equals) {
        return -1;
    }

    *value = equals + 1;

    return td_config_find(override, (size_t) (dot - override), dot + 1,
                          (size_t) (equals - dot - 1));
}


/* Sets one option from its text; source says where the text is from. */
static int
td_config_set(td_config_t *config, size_t i, const char *text,
    const char *source, tg_error_t *err)
{
    void               *field;
    const char         *problem;
    const td_option_t  *option;

    option = &td_options[i];
    field = (char *) config + option->offset;

    if (option->type->clear != NULL) {
        option->type->clear(field);
    }

    free(config->text[i]);
    config->text[i] = strdup(text);

    problem = config->text[i] != NULL ? option->type->parse(text, field)
                                      : "is too long for memory";

    if (problem != NULL) {
        tg_error_set(err, "", "%s: [%s] %s is \"%.60s\", but %s", source,
                     option->section, option->key, text, problem);
        return -1;
    }

    return 0;
}


static int
td_config_fill(td_config_t *config, const char *path, char **text,
    char *const *overrides, size_t n, tg_error_t *err)
{
    char         name[64];
    long         at;
    size_t       i;
    const char  *value;

    for (i = 0; i < td_options_n; i++) {
        if (td_config_set(config, i, td_options[i].fallback, "default", err)
            || (text[i] != NULL
                && td_config_set(config, i, text[i], path, err)))
        {
            return -1;
        }

        value = td_config_variable(&td_options[i], name, sizeof(name));

        if (value != NULL && td_config_set(config, i, value, name, err)) {
            return -1;
        }
    }

    for (i = 0; i < n; i++) {
        at = td_config_split_override(overrides[i], &value);

        if (at < 0) {
            tg_error_set(err, "", "--set %s: there is no such option; write "
                         "--set section.key=value", overrides[i]);
            return -1;
        }

        if (td_config_set(config, (size_t) at, value, "--set", err)) {
            return -1;
        }
    }

    return 0;
}


td_config_t *
td_config_load(const char *path, char *const *overrides, size_t n,
    tg_error_t *err)
{
    int           rc;
    char        **text;
    size_t        i;
    td_config_t  *config;

    err->message[0] = '\0';
    text = calloc(td_options_n, sizeof(char *));
    config = calloc(1, sizeof(td_config_t));

    if (text == NULL || config == NULL
        || (config->text = calloc(td_options_n, sizeof(char *))) == NULL)
    {
        tg_error_set(err, "", "out of memory");
        free(text);
        free(config);
        return NULL;
    }

    rc = path != NULL ? td_config_read_file(path, text, err) : 0;

    if (rc == 0) {
        rc = td_config_fill(config, path, text, overrides, n, err);
    }

    for (i = 0; i < td_options_n; i++) {
        free(text[i]);
    }
    free(text);

    if (rc != 0) {
        td_config_destroy(config);
        return NULL;
    }

    return config;
}


void
td_config_destroy(td_config_t *config)
{
    size_t  i;

    if (config == NULL) {
        return;
    }

    for (i = 0; i < td_options_n; i++) {
        if (td_options[i].type->clear != NULL) {
            td_options[i].type->clear((char *) config + td_options[i].offset);
        }
        free(config->text[i]);
    }

    free(config->text);
    free(config);
}


void
td_config_reload(td_config_t *config, td_config_t *fresh,
    void (*changed)(const td_option_t *option, int effective))
{
    size_t              i;
    tg_error_t          err;
    const td_option_t  *option;

    for (i = 0; i < td_options_n; i++) {
        option = &td_options[i];

        if (strcmp(config->text[i], fresh->text[i]) == 0) {
            continue;
        }

        if (option->reloadable) {
            td_config_set(config, i, fresh->text[i], "reload", &err);
        }

        changed(option, option->reloadable);
    }

    td_config_destroy(fresh);
}


int
td_list_has(const td_list_t *list, const char *text)
{
    size_t  i;

    for (i = 0; i < list->n; i++) {
        if (strcmp(list->item[i], text) == 0) {
            return 1;
        }
    }

    return 0;
}
