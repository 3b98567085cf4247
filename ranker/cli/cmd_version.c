/* cmd_version.c - mixrank version.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "mixrank_version.h"
#include "ranker/cli/command.h"

typedef struct {
    bool json;
} version_options;

static const mr_option options[] = {
    MR_OPTION_FLAG("json", 0, version_options, json, "print JSON"),
    MR_OPTION_END,
};

static const mr_command_help help = {"version", "[--json]", "Prints version, commit and build.",
                                     "  mixrank version\n"};

int mr_cmd_version(int argc, char **argv)
{
    version_options opt = {0};
    int n_positional = 0, code = 0;
    if (!mr_command_options(&help, options, argc, argv, &opt, &n_positional, &code))
        return code;
    if (n_positional)
        return mr_command_misuse(help.name, "unexpected argument '%s'", argv[1]);
    if (opt.json)
        mr_command_print_json(json_pack("{s:s, s:s, s:s, s:s}", "version", MR_VERSION, "commit",
                                        MR_COMMIT, "build", MR_BUILD_TYPE, "compiler",
                                        MR_COMPILER));
    else
        printf("mixrank %s (commit %s, %s, %s)\n", MR_VERSION, MR_COMMIT, MR_BUILD_TYPE,
               MR_COMPILER);
    return MR_EXIT_OK;
}
