/* store_verify.c - mixrank store verify: every record's header, checksum, finiteness and space.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/progress.h"
#include "encoders/space.h"
#include "featurestore/record.h"
#include "ranker/cli/store_commands.h"

typedef struct {
    mr_store_access access;
    int64_t limit;
    bool json, quiet;
} verify_options;

static const mr_option options[] = {
    MR_STORE_ACCESS_OPTIONS(verify_options),
    MR_OPTION_INT("limit", 0, "N", verify_options, limit, 0, 1e6,
                  "tell the first N damaged records; all are counted"),
    MR_OPTION_FLAG("json", 0, verify_options, json, "print JSON"),
    MR_OPTION_FLAG("quiet", 0, verify_options, quiet, "no progress bar"),
    MR_OPTION_END,
};

static const mr_command_help help = {
    "store verify", "--store URL [options]",
    "Checks every record: header, checksum, that its values are finite and that its key names the "
    "space it was made in. Exits with 1 when one is damaged; the next put of its id replaces it.",
    "  mixrank store verify -s build/demo/store\n"};

typedef struct {
    const verify_options *opt;
    mr_store *store;
    mr_entity entity;
    uint64_t space;
    uint64_t checked, damaged;
    json_t *list; /* with --json */
    mr_progress bar;
} verify_state;

static bool on_record(void *context, mr_str id, mr_bytes record)
{
    verify_state *state = context;
    mr_record_info info;
    mr_error err = {0};
    char key[128], space[MR_SPACE_TEXT];
    mr_progress_update(&state->bar, ++state->checked, NULL);
    if (mr_record_check(NULL, record, &info, NULL) == MR_OK && info.space == state->space)
        return true;
    if (state->damaged++ >= (uint64_t)state->opt->limit)
        return true;
    mr_space_format(state->space, space);
    const char *entity = state->entity == MR_ENTITY_USER ? "user" : "item";
    snprintf(key, sizeof key, "%s:%s:%.*s", entity, space, id.len > 80 ? 80 : (int)id.len, id.data);
    if (mr_record_check(key, record, &info, &err) == MR_OK)
        (void)MR_FAIL(&err, MISMATCH, "'%s' holds a record of space %016" PRIx64, key, info.space);
    if (state->list) {
        json_array_append_new(state->list,
                              json_pack("{s:s, s:s, s:o, s:o}", "entity", entity, "space", space,
                                        "id", mr_command_json_text(id), "reason",
                                        mr_command_json_text(mr_str_of(err.message))));
        return true;
    }
    mr_progress_clear();
    mr_command_print_text(stdout, mr_str_of(err.message));
    putchar('\n');
    return true;
}

static mr_status verify_space(void *context, mr_entity entity, uint64_t space, mr_error *err)
{
    verify_state *state = context;
    state->entity = entity;
    state->space = space;
    return mr_store_walk(state->store, entity, space, on_record, state, err);
}

int mr_store_cmd_verify(int argc, char **argv)
{
    verify_options opt = {.access = MR_STORE_ACCESS_DEFAULT, .limit = 100};
    int n = 0, code = 0;
    if (!mr_command_options(&help, options, argc, argv, &opt, &n, &code))
        return code;
    if (n)
        return mr_command_misuse(help.name, "unexpected argument '%s'", argv[1]);
    if (!opt.access.store)
        return mr_command_misuse(help.name, "--store is missing");
    mr_progress_set_quiet(opt.quiet);
    mr_error err = {0};
    mr_store *store = NULL;
    mr_store_stats stats = {0};
    verify_state state = {.opt = &opt, .list = opt.json ? json_array() : NULL};
    mr_status status = mr_store_access_open(&store, &opt.access, MR_STORE_READ, &err);
    if (status == MR_OK)
        status = mr_store_stat(store, &stats, &err);
    state.bar = mr_progress_start("verifying", stats.records, "records");
    state.store = store;
    if (status == MR_OK)
        status = mr_store_each_space(store, MR_ENTITY_COUNT, verify_space, &state, &err);
    mr_progress_finish(&state.bar, NULL);
    if (status != MR_OK)
        code = mr_command_fail(help.name, &err);
    else if (opt.json)
        mr_command_print_json(json_pack("{s:I, s:I, s:O}", "records", (json_int_t)state.checked,
                                        "damaged", (json_int_t)state.damaged, "keys", state.list));
    else
        printf("%" PRIu64 " records, %" PRIu64 " damaged\n", state.checked, state.damaged);
    if (status == MR_OK && state.damaged)
        code = MR_EXIT_FAILED;
    json_decref(state.list);
    mr_store_close(store);
    return code;
}
