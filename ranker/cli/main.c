/* main.c - the mixrank program: a table of subcommands, one file each.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "ranker/cli/command.h"

static const mr_command commands[] = {
    {"encode", mr_cmd_encode, "turn items (and users) into embedding tokens in a store"},
    {"rank", mr_cmd_rank, "rank candidates for a query and a user"},
    {"refresh", mr_cmd_refresh, "keep a store fresh from Kafka"},
    {"store", mr_cmd_store, "look into a store, copy it, switch the bundle it is ranked with"},
    {"train", mr_cmd_train, "run one stage of training as a recipe says"},
    {"evaluate", mr_cmd_evaluate, "measure bundles and baselines on the tasks of a catalogue"},
    {"bundle", mr_cmd_bundle, "create, verify and describe model packages"},
    {"caption", mr_cmd_caption, "ask a LLaVA about pictures"},
    {"tokenize", mr_cmd_tokenize, "text to token ids and back"},
    {"forward", mr_cmd_forward, "every hidden state and the logits of a model, to compare"},
    {"check", mr_cmd_check, "what this machine and build can do; check a bundle and a store"},
    {"version", mr_cmd_version, "version, commit, build"},
    {NULL, NULL, NULL},
};

int main(int argc, char **argv)
{
    int code = mr_command_dispatch(
        "mixrank",
        "Ranks items for a query and a user with a language model that reads embedding tokens:\n"
        "vectors computed ahead of time, projected into the model's word-embedding space.",
        commands, argc, argv);
    /* A full disk or a closed pipe must not look like success. A buffer that was lost on the way is
     * remembered by the stream alone: the last flush may have nothing left to fail with. */
    const bool failed_before = ferror(stdout) != 0;
    if ((fflush(stdout) != 0 || failed_before) && code == MR_EXIT_OK) {
        if (failed_before)
            fputs("mixrank: standard output: a write failed; is the disk full?\n", stderr);
        else
            perror("mixrank: standard output");
        code = MR_EXIT_FAILED;
    }
    return code;
}
