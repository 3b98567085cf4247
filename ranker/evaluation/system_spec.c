/* system_spec.c - see system_spec.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/evaluation/system_spec.h"

#include <string.h>

#include "core/options.h"
#include "core/strbuf.h"

#define MAX_NAME 120

/* Which options a kind takes. */
enum {
    FOR_DOT = 1 << MR_SYSTEM_DOT,
    FOR_BUNDLE = 1 << MR_SYSTEM_BUNDLE,
    FOR_RUN = 1 << MR_SYSTEM_RUN,
    FOR_BASELINE = 1 << MR_SYSTEM_BASELINE,
    FOR_MODELS = FOR_DOT | FOR_BUNDLE,
    FOR_BLEND = FOR_MODELS | FOR_RUN,
    FOR_ALL = FOR_BLEND | FOR_BASELINE
};

typedef enum {
    OPTION_NAME,
    OPTION_NO_USER,
    OPTION_NO_QUERY,
    OPTION_STORE,
    OPTION_BLEND,
    OPTION_PRIOR,
    OPTION_HISTORY_ITEMS,
    OPTION_HISTORY,
    OPTION_NEAREST,
    OPTION_LAST,
    OPTION_COUNT
} option_id;

static const struct {
    const char *name;
    bool has_value;
    unsigned kinds;
} options[OPTION_COUNT] = {
    [OPTION_NAME] = {"name", true, FOR_ALL},
    [OPTION_NO_USER] = {"no-user", false, FOR_MODELS},
    [OPTION_NO_QUERY] = {"no-query", false, FOR_MODELS},
    [OPTION_STORE] = {"store", true, FOR_MODELS},
    [OPTION_BLEND] = {"blend", true, FOR_BLEND},
    [OPTION_PRIOR] = {"prior", true, FOR_BLEND},
    [OPTION_HISTORY_ITEMS] = {"history-items", true, FOR_BUNDLE},
    [OPTION_HISTORY] = {"history", true, FOR_DOT},
    [OPTION_NEAREST] = {"nearest", true, FOR_DOT},
    [OPTION_LAST] = {"last", false, FOR_DOT},
};

static bool find_baseline(const char *name, mr_baseline *out)
{
    for (int i = 0; i < MR_BASELINE_COUNT; i++)
        if (strcmp(name, mr_baseline_name((mr_baseline)i)) == 0) {
            *out = (mr_baseline)i;
            return true;
        }
    return false;
}

static mr_status unknown(const char *what, const char *found, const char *const *known, size_t n,
                         mr_error *err)
{
    const char *near = mr_nearest_name(found, known, n);
    if (near)
        return MR_FAIL(err, INVALID, "unknown %s '%.60s'; did you mean '%s'?", what, found, near);
    mr_strbuf list = {0};
    for (size_t i = 0; i < n; i++)
        mr_strbuf_printf(&list, "%s%s", i ? ", " : "", known[i]);
    mr_status status = MR_FAIL(err, INVALID, "unknown %s '%.60s'; known are %s", what, found,
                               list.data ? list.data : "none");
    mr_strbuf_release(&list);
    return status;
}

static mr_status read_kind(char *head, mr_system_spec *out, mr_error *err)
{
    static const char *const prefix[] = {
        [MR_SYSTEM_DOT] = "dot:", [MR_SYSTEM_BUNDLE] = "bundle:", [MR_SYSTEM_RUN] = "run:"};
    for (int kind = MR_SYSTEM_DOT; kind <= MR_SYSTEM_RUN; kind++) {
        if (strncmp(head, prefix[kind], strlen(prefix[kind])) != 0)
            continue;
        out->kind = (mr_system_kind)kind;
        out->path = head + strlen(prefix[kind]);
        return *out->path ? MR_OK : MR_FAIL(err, INVALID, "'%s' needs a path", prefix[kind]);
    }
    if (find_baseline(head, &out->baseline))
        return MR_OK;
    const char *known[MR_BASELINE_COUNT + 3];
    size_t n = 0;
    for (; n < MR_BASELINE_COUNT; n++)
        known[n] = mr_baseline_name((mr_baseline)n);
    for (int kind = MR_SYSTEM_DOT; kind <= MR_SYSTEM_RUN; kind++)
        known[n++] = prefix[kind];
    return unknown("system", head, known, n, err);
}

static mr_status read_count(const char *name, const char *value, int64_t most, size_t *out,
                            mr_error *err)
{
    int64_t number = 0;
    mr_status status = mr_parse_int(name, value, 1, most, &number, err);
    *out = (size_t)number;
    return status;
}

static mr_status set_option(mr_system_spec *out, option_id id, const char *value, mr_error *err)
{
    switch (id) {
    case OPTION_NAME: out->name = value; return MR_OK;
    case OPTION_NO_USER: out->variant.no_user = true; return MR_OK;
    case OPTION_NO_QUERY: out->variant.no_query = true; return MR_OK;
    case OPTION_STORE: out->store = value; return MR_OK;
    case OPTION_LAST: out->dot.last_token = true; return MR_OK;
    case OPTION_BLEND:
        out->tune = strcmp(value, "tune") == 0;
        return out->tune ? MR_OK : mr_parse_real("blend", value, -1e6, 1e6, &out->blend, err);
    case OPTION_HISTORY: return mr_parse_real("history", value, 0, 1e6, &out->dot.history, err);
    case OPTION_NEAREST: return read_count("nearest", value, 64, &out->dot.nearest, err);
    case OPTION_HISTORY_ITEMS:
        return read_count("history-items", value, 1000, &out->variant.history_items, err);
    case OPTION_PRIOR: {
        const char *known[MR_BASELINE_COUNT];
        if (find_baseline(value, &out->prior))
            return MR_OK;
        for (int i = 0; i < MR_BASELINE_COUNT; i++)
            known[i] = mr_baseline_name((mr_baseline)i);
        return unknown("prior", value, known, MR_BASELINE_COUNT, err);
    }
    case OPTION_COUNT: break;
    }
    return MR_FAIL(err, INTERNAL, "an option without a meaning");
}

static mr_status read_option(mr_system_spec *out, char *part, mr_error *err)
{
    const char *known[OPTION_COUNT];
    size_t n_known = 0;
    char *equals = strchr(part, '=');
    if (equals)
        *equals = '\0';
    for (int id = 0; id < OPTION_COUNT; id++) {
        if (!(options[id].kinds & (1u << out->kind)))
            continue;
        known[n_known++] = options[id].name;
        if (strcmp(part, options[id].name) != 0)
            continue;
        if (options[id].has_value != (equals != NULL))
            return MR_FAIL(err, INVALID, "'%s' %s", part,
                           equals ? "takes no value" : "needs a value: write it NAME=VALUE");
        if (equals && !equals[1])
            return MR_FAIL(err, INVALID, "'%s' is empty", part);
        return set_option(out, (option_id)id, equals ? equals + 1 : NULL, err);
    }
    return unknown("option", part, known, n_known, err);
}

/* The spec with the last part of its path: reports are no place for the folders of a machine. */
static mr_status make_name(mr_arena *arena, mr_system_spec *out, mr_error *err)
{
    mr_strbuf name = {0};
    if (out->kind == MR_SYSTEM_BASELINE) {
        mr_strbuf_puts(&name, mr_baseline_name(out->baseline));
    } else {
        size_t len = strlen(out->path);
        while (len > 1 && out->path[len - 1] == '/')
            len--;
        size_t begin = len;
        while (begin > 0 && out->path[begin - 1] != '/')
            begin--;
        mr_strbuf_append(&name, out->text, (size_t)(strchr(out->text, ':') - out->text) + 1);
        mr_strbuf_append(&name, out->path + begin, len - begin);
    }
    if (out->variant.no_user)
        mr_strbuf_puts(&name, " no-user");
    if (out->variant.no_query)
        mr_strbuf_puts(&name, " no-query");
    if (out->blend != 0)
        mr_strbuf_printf(&name, " + %g %s", out->blend, mr_baseline_name(out->prior));
    if (out->tune)
        mr_strbuf_printf(&name, " + tuned %s", mr_baseline_name(out->prior));
    out->name = name.failed ? NULL : mr_arena_strndup(arena, name.data, name.len);
    mr_strbuf_release(&name);
    return out->name ? MR_OK : MR_FAIL(err, NO_MEMORY, "a system's name");
}

mr_status mr_system_spec_parse(mr_arena *arena, const char *text, mr_system_spec *out,
                               mr_error *err)
{
    *out = (mr_system_spec){.prior = MR_BASELINE_BM25, .dot = {.history = 1}};
    char *copy = mr_arena_strndup(arena, text, strlen(text));
    out->text = mr_arena_strndup(arena, text, strlen(text));
    if (!copy || !out->text)
        return MR_FAIL(err, NO_MEMORY, "a system");
    char *rest = strchr(copy, ',');
    if (rest)
        *rest++ = '\0';
    mr_status status = read_kind(copy, out, err);
    while (status == MR_OK && rest) {
        char *part = rest;
        rest = strchr(part, ',');
        if (rest)
            *rest++ = '\0';
        status = read_option(out, part, err);
    }
    if (status == MR_OK && out->name && strlen(out->name) > MAX_NAME)
        status = MR_FAIL(err, INVALID, "the name is longer than %d bytes", MAX_NAME);
    if (status == MR_OK && !out->name)
        status = make_name(arena, out, err);
    return status == MR_OK ? status : mr_error_prefix(err, status, "system '%.200s'", text);
}

mr_status mr_system_spec_tuned(mr_arena *arena, const mr_system_spec *spec, mr_system_spec *out,
                               mr_error *err)
{
    mr_strbuf name = {0};
    *out = *spec;
    out->tune = true;
    mr_strbuf_printf(&name, "%s + tuned %s", spec->name, mr_baseline_name(spec->prior));
    out->name = name.failed ? NULL : mr_arena_strndup(arena, name.data, name.len);
    mr_strbuf_release(&name);
    return out->name ? MR_OK : MR_FAIL(err, NO_MEMORY, "a system's name");
}

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

bool mr_system_spec_same_scores(const mr_system_spec *a, const mr_system_spec *b)
{
    if (a->kind != b->kind || a->baseline != b->baseline || !same_text(a->path, b->path) ||
        !same_text(a->store, b->store))
        return false;
    return a->variant.no_user == b->variant.no_user && a->variant.no_query == b->variant.no_query &&
           a->variant.history_items == b->variant.history_items &&
           a->dot.history == b->dot.history && a->dot.nearest == b->dot.nearest &&
           a->dot.last_token == b->dot.last_token;
}
