/* main.c - demo-catalogue: makes a catalogue of real products out of a Debian archive's indexes.
 *
 * Not installed: it serves the quickstart and whoever trains or measures on the same data.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "core/options.h"
#include "deploy/demo/catalogue.h"

typedef struct {
    const char *lists, *icons, *debtags, *out;
    bool report;
} program_options;

static const mr_option table[] = {
    MR_OPTION_STRING("lists", 0, "DIR", program_options, lists,
                     "index files: Packages, Translation-en, Sources, Components.yml, Release"),
    MR_OPTION_STRING("icons", 0, "DIR", program_options, icons, "the archive's 64x64 icons"),
    MR_OPTION_STRING("debtags", 0, "FILE", program_options, debtags, "the vocabulary of the tags"),
    MR_OPTION_STRING("out", 'o', "DIR", program_options, out, "the folder to write"),
    MR_OPTION_FLAG("report", 0, program_options, report,
                   "print counts and simple baselines beside the published ones"),
    MR_OPTION_END,
};

static const mr_command_help help = {
    "demo-catalogue",
    "--lists DIR --icons DIR --debtags FILE --out DIR",
    "Makes items, users, queries and labels out of a Debian archive. deploy/demo/README.md says "
    "what they are and what may be done with them.",
    "  deploy/demo/fetch build/demo/archive\n"
    "  build/release/demo-catalogue --lists build/demo/archive/lists "
    "--icons build/demo/archive/icons \\\n"
    "      --debtags build/demo/archive/debtags.vocabulary --out build/demo/catalogue --report\n",
};

static int used_wrongly(const char *message)
{
    fprintf(stderr, "demo-catalogue: %s; see demo-catalogue --help\n", message);
    return 2;
}

int main(int argc, char **argv)
{
    program_options options = {0};
    const program_options defaults = {0};
    int n_positional = 0;
    bool help_wanted = false;
    mr_error err = {0};
    if (mr_options_parse(table, argc, argv, &options, &n_positional, &help_wanted, &err) != MR_OK)
        return used_wrongly(err.message);
    if (help_wanted) {
        mr_options_print_help(stdout, &help, table, &defaults);
        return 0;
    }
    if (n_positional > 0)
        return used_wrongly("takes options only");
    if (!options.lists || !options.icons || !options.debtags || !options.out)
        return used_wrongly("--lists, --icons, --debtags and --out are needed");

    demo_options build = {
        .lists = options.lists,
        .icons = options.icons,
        .vocabulary = options.debtags,
        .out = options.out,
        .rules = demo_rules_default,
        .report = options.report ? stdout : NULL,
    };
    demo_summary summary;
    if (demo_catalogue_build(&build, &summary, &err) != MR_OK) {
        fprintf(stderr, "demo-catalogue: %s\n", err.message);
        return 1;
    }
    if (summary.icons_missing)
        fprintf(stderr,
                "demo-catalogue: %zu icons that the metadata names are not in '%s', or no PNG\n",
                summary.icons_missing, options.icons);
    fprintf(stderr,
            "demo-catalogue: %zu items, %zu with a picture, %zu users, %zu queries in '%s'\n",
            summary.items, summary.icons, summary.users, summary.queries, options.out);
    fprintf(stderr, "demo-catalogue: for training %zu texts, %zu pairs, %zu lists\n", summary.texts,
            summary.pairs, summary.lists);
    return 0;
}
