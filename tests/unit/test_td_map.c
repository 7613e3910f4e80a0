/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "td_map_draw.h"


static tg_text_t  text;


/* Edges as "a>b a>c": names of one tenant. */
static json_t *
edges(const char *given)
{
    char    *copy, *word, *save;
    json_t  *list;

    copy = strdup(given);
    list = json_array();

    for (word = strtok_r(copy, " ", &save); word != NULL;
         word = strtok_r(NULL, " ", &save))
    {
        char  *to = strchr(word, '>');

        *to++ = '\0';
        json_array_append_new(list, json_pack(
            "{s:{s:s,s:s}, s:{s:s,s:s}, s:i}",
            "source", "tenant", "acme", "service", word,
            "destination", "tenant", "acme", "service", to,
            "connections", 1));
    }

    free(copy);

    return json_pack("{s:s, s:o}", "tenant", "acme", "edges", list);
}


static const td_map_node_t *
node(const td_map_t *map, const char *service)
{
    size_t  i;

    for (i = 0; i < map->nodes; i++) {
        if (strcmp(map->node[i].service, service) == 0) {
            return &map->node[i];
        }
    }

    fail_msg("no node %s", service);

    return NULL;
}


static void
test_layers(void **state)
{
    size_t    i, j;
    json_t   *json;
    td_map_t  map;

    (void) state;

    json = edges("web>orders web>search orders>db search>db orders>queue "
                 "queue>worker worker>db worker>orders db>db");
    assert_int_equal(td_map_read(&map, json), 0);
    td_map_layout(&map);

    assert_int_equal(map.nodes, 6);
    assert_int_equal(node(&map, "web")->layer, 0);
    assert_int_equal(node(&map, "orders")->layer, 1);
    assert_int_equal(node(&map, "queue")->layer, 2);
    assert_int_equal(node(&map, "worker")->layer, 3);
    assert_int_equal(node(&map, "db")->layer, 4);
    assert_int_equal(map.layers, 5);

    /* worker>orders and db>db go back, nothing else */
    for (i = 0, j = 0; i < map.edges; i++) {
        j += (size_t) map.edge[i].back;
    }
    assert_int_equal(j, 2);

    for (i = 0; i < map.nodes; i++) {
        for (j = 0; j < i; j++) {
            assert_false(map.node[i].layer == map.node[j].layer
                         && map.node[i].row == map.node[j].row);
        }
    }

    td_map_free(&map);
    json_decref(json);
}


/* Whatever calls whatever, it ends, and no two are at one place. */
static void
test_random(void **state)
{
    int            i, n;
    char           given[8000];
    size_t         k, len;
    json_t        *json;
    td_map_t       map;
    unsigned char  taken[64][64];

    (void) state;

    srandom(1);

    for (n = 0; n < 60; n++) {
        for (len = 0, i = 0; i < 5 * n + 1; i++) {
            len += (size_t) sprintf(given + len, "s%ld>s%ld ", random() % 40,
                                    random() % 40);
        }

        json = edges(given);
        assert_int_equal(td_map_read(&map, json), 0);
        td_map_layout(&map);
        memset(taken, 0, sizeof(taken));

        for (k = 0; k < map.nodes; k++) {
            assert_int_equal(taken[map.node[k].layer][map.node[k].row]++, 0);
        }
        for (k = 0; k < map.edges; k++) {
            assert_true(map.edge[k].back || map.node[map.edge[k].from].layer
                                            < map.node[map.edge[k].to].layer);
        }

        tg_text_reset(&text);
        td_map_svg(&text, &map);
        assert_false(text.failed);
        td_map_free(&map);
        json_decref(json);
    }
}


static void
test_escapes(void **state)
{
    size_t  i;

    static const struct {
        const char  *given, *xml, *dot;
    } cases[] = {
        { "plain", "plain", "\"plain\"" },
        { "<script>&\"'", "&lt;script&gt;&amp;&quot;&#39;",
          "\"<script>&\\\"'\"" },
        { "\"]; evil [label=\"", "&quot;]; evil [label=&quot;",
          "\"\\\"]; evil [label=\\\"\"" },
        { "a\\", "a\\", "\"a\\\\\"" },
        { "a\nb\x01\x7f", "a\xef\xbf\xbd" "b\xef\xbf\xbd\xef\xbf\xbd",
          "\"a\xef\xbf\xbd" "b\xef\xbf\xbd\xef\xbf\xbd\"" },
        { "\xff\xc3\xbc", "\xef\xbf\xbd\xc3\xbc", "\"\xef\xbf\xbd\xc3\xbc\"" },
        { "\xef\xbf\xbe", "\xef\xbf\xbd", "\"\xef\xbf\xbe\"" },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        tg_text_reset(&text);
        td_map_xml(&text, cases[i].given);
        assert_int_equal(text.len, strlen(cases[i].xml));
        assert_memory_equal(text.data, cases[i].xml, text.len);

        tg_text_reset(&text);
        td_map_quote(&text, cases[i].given);
        assert_int_equal(text.len, strlen(cases[i].dot));
        assert_memory_equal(text.data, cases[i].dot, text.len);
    }
}


/* Names that SQL would never give out, and answers of another form. */
static void
test_hostile(void **state)
{
    size_t    i;
    json_t   *json;
    td_map_t  map;

    static const char *const  bodies[] = {
        "[]", "{\"edges\": 5}", "{\"edges\": [1, null, {}, []]}",
        "{\"tenant\": 7, \"edges\": [{\"source\": \"x\"}]}",
        "{\"tenant\": \"</title><script>x</script>\", \"edges\": [{\"source\": "
        "{\"tenant\": \"a\\\"]\", \"service\": \"<script>alert(1)</script>\"}, "
        "\"connections\": \"x\", \"destination\": {\"tenant\": \"]]>\", "
        "\"service\": \"\\\\\\\"];system[\"}}]}",
    };

    (void) state;

    for (i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        json = json_loads(bodies[i], 0, NULL);
        assert_non_null(json);
        assert_int_equal(td_map_read(&map, json), 0);
        td_map_layout(&map);
        tg_text_reset(&text);
        td_map_svg(&text, &map);
        tg_text_add(&text, "", 1);
        assert_null(strstr(text.data, "<script"));

        /* a quote that was given is never the end of a label */
        tg_text_reset(&text);
        td_map_dot(&text, &map);
        tg_text_add(&text, "", 1);
        assert_null(strstr(text.data, "[label=\"a\"]"));
        td_map_free(&map);
        json_decref(json);
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_layers), cmocka_unit_test(test_random),
        cmocka_unit_test(test_escapes), cmocka_unit_test(test_hostile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
