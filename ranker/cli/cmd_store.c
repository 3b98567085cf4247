/* cmd_store.c - mixrank store: look into a store, carry it elsewhere, and say which bundle ranks
 * by it. The subcommands are in store_*.c.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/cli/store_commands.h"

int mr_cmd_store(int argc, char **argv)
{
    static const mr_command commands[] = {
        {"get", mr_store_cmd_get, "show records"},
        {"stat", mr_store_cmd_stat, "what a store holds, by entity and space"},
        {"verify", mr_store_cmd_verify, "check every record"},
        {"copy", mr_store_cmd_copy, "copy records between stores and files"},
        {"remove", mr_store_cmd_remove, "remove a space, or all that no bundle reads any more"},
        {"active", mr_store_cmd_active, "which bundle the store is ranked with"},
        {"coverage", mr_store_cmd_coverage, "how much of the next bundle's spaces is there"},
        {"switch", mr_store_cmd_switch, "make another bundle, with its spaces, the active one"},
        {"rollback", mr_store_cmd_rollback, "back to the bundle that was active before"},
        {NULL, NULL, NULL},
    };
    return mr_command_dispatch(
        "mixrank store",
        "Looks into a store of embedding records, copies between stores and files, and switches\n"
        "the bundle that the store is ranked with (docs/migration.md).",
        commands, argc, argv);
}
