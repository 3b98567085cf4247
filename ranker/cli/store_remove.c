/* store_remove.c - mixrank store remove: a space, or all spaces that no bundle reads any more.
 *
 * What the active and the previous bundle read is kept: the one because it is in use, the other
 * because a roll back would need it. The note is read again before each space, since someone may
 * roll back meanwhile.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "encoders/space.h"
#include "ranker/cli/store_commands.h"

typedef struct {
    mr_store_access access;
    const char *space;
    int kind;
    bool retired, yes, force, json;
} remove_options;

static const char *const kind_choices[] = {"item", "user", NULL};

static const mr_option options[] = {
    MR_STORE_ACCESS_OPTIONS(remove_options),
    MR_OPTION_CHOICE("entity", 'e', "KIND", remove_options, kind, kind_choices,
                     "whose space (pictures are items)"),
    MR_OPTION_STRING("space", 0, "HEX", remove_options, space, "the space to remove"),
    MR_OPTION_FLAG("retired", 0, remove_options, retired,
                   "all spaces that neither the active nor the previous bundle reads"),
    MR_OPTION_FLAG("yes", 0, remove_options, yes, "do it; without, only say what would go"),
    MR_OPTION_FLAG("force", 0, remove_options, force,
                   "also a space that the active or the previous bundle reads"),
    MR_OPTION_FLAG("json", 0, remove_options, json, "print JSON, one line for each space"),
    MR_OPTION_END,
};

static const mr_command_help help = {
    "store remove", "--store URL (--space HEX | --retired) --yes [options]",
    "Removes all records of a space, tombstones included. Without --yes it only says what would "
    "go, "
    "and exits with 1.",
    "  mixrank store remove -s build/demo/store --retired\n"
    "  mixrank store remove -s build/demo/store --entity item --space 9f00c0ffee000001 --yes\n"};

static bool is_read_by(const mr_active_bundle *bundle, mr_entity entity, uint64_t space)
{
    return entity == MR_ENTITY_USER ? bundle->user_space == space
                                    : bundle->item_space == space || bundle->image_space == space;
}

/* MISMATCH when a bundle reads it. */
static mr_status check_unused(mr_store *store, mr_entity entity, uint64_t space, mr_error *err)
{
    mr_arena arena = {0};
    mr_active active;
    mr_status status = mr_active_read(store, &arena, &active, err);
    const mr_active_bundle *const both[] = {&active.bundle, &active.previous};
    for (size_t i = 0; i < 2 && status == MR_OK; i++)
        if (both[i]->name && is_read_by(both[i], entity, space))
            status = MR_FAIL(err, MISMATCH,
                             "space %016" PRIx64 " is read by bundle %s %s, which is the %s one; "
                             "--force removes it all the same",
                             space, both[i]->name, both[i]->version, i ? "previous" : "active");
    mr_arena_done(&arena);
    return status;
}

static void tell(const remove_options *opt, mr_entity entity, uint64_t space, uint64_t removed)
{
    char text[MR_SPACE_TEXT];
    const char *name = entity == MR_ENTITY_USER ? "user" : "item";
    mr_space_format(space, text);
    if (opt->json)
        mr_command_print_json(json_pack("{s:s, s:s, s:b, s:I}", "entity", name, "space", text,
                                        "removed", opt->yes, "records", (json_int_t)removed));
    else if (opt->yes)
        printf("removed %" PRIu64 " records of %s space %s\n", removed, name, text);
    else
        printf("would remove %s space %s\n", name, text);
}

static mr_status remove_now(mr_store *store, const remove_options *opt, mr_entity entity,
                            uint64_t space, mr_error *err)
{
    uint64_t removed = 0;
    mr_status status =
        opt->yes ? mr_store_remove_space(store, entity, space, &removed, err) : MR_OK;
    if (status == MR_OK)
        tell(opt, entity, space, removed);
    return status;
}

static mr_status remove_one(mr_store *store, const remove_options *opt, mr_entity entity,
                            uint64_t space, mr_error *err)
{
    mr_status status = opt->force ? MR_OK : check_unused(store, entity, space, err);
    return status == MR_OK ? remove_now(store, opt, entity, space, err) : status;
}

typedef struct {
    mr_store *store;
    const remove_options *opt;
} retired_visit;

static mr_status remove_if_unused(void *context, mr_entity entity, uint64_t space, mr_error *err)
{
    const retired_visit *visit = context;
    mr_error used = {0};
    mr_status status = check_unused(visit->store, entity, space, &used);
    if (status == MR_MISMATCH)
        return MR_OK;
    if (status != MR_OK) {
        *err = used;
        return status;
    }
    return remove_now(visit->store, visit->opt, entity, space, err);
}

static mr_status remove_retired(mr_store *store, const remove_options *opt, mr_error *err)
{
    mr_arena arena = {0};
    mr_active active;
    retired_visit visit = {store, opt};
    mr_status status = mr_active_read(store, &arena, &active, err);
    if (status == MR_OK && !active.generation)
        status = MR_FAIL(err, NOT_FOUND,
                         "the store names no active bundle, so that no space can be told from a "
                         "retired one; `mixrank store switch` names it");
    if (status == MR_OK)
        status = mr_store_each_space(store, MR_ENTITY_COUNT, remove_if_unused, &visit, err);
    mr_arena_done(&arena);
    return status;
}

int mr_store_cmd_remove(int argc, char **argv)
{
    remove_options opt = {.access = MR_STORE_ACCESS_DEFAULT};
    int n = 0, code = 0;
    if (!mr_command_options(&help, options, argc, argv, &opt, &n, &code))
        return code;
    if (n)
        return mr_command_misuse(help.name, "unexpected argument '%s'", argv[1]);
    if (!opt.access.store)
        return mr_command_misuse(help.name, "--store is missing");
    if (!opt.space == !opt.retired)
        return mr_command_misuse(help.name, "give either --space or --retired");
    mr_error err = {0};
    mr_store *store = NULL;
    uint64_t space = 0;
    mr_status status = opt.space ? mr_space_parse(opt.space, &space, &err) : MR_OK;
    if (status == MR_OK)
        status = mr_store_access_open(&store, &opt.access,
                                      opt.yes ? MR_STORE_CHANGE : MR_STORE_READ, &err);
    if (status == MR_OK)
        status = opt.retired ? remove_retired(store, &opt, &err)
                             : remove_one(store, &opt, (mr_entity)opt.kind, space, &err);
    if (status == MR_OK && opt.yes)
        status = mr_store_sync(store, &err);
    if (status != MR_OK)
        code = mr_command_fail(help.name, &err);
    else if (!opt.yes) {
        fprintf(stderr, "mixrank store remove: nothing was removed; --yes does it\n");
        code = MR_EXIT_FAILED;
    }
    mr_store_close(store);
    return code;
}
