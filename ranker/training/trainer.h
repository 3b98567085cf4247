/* trainer.h - the one training loop: any stage, from a recipe to a folder.
 *
 * out/ gets log.jsonl (one line per logged step), loss.svg, checkpoint-<step>/ while it runs, and
 * at the end the parts in Hugging Face layout (llm/, encoder/, item_projector.safetensors, ...),
 * f32.
 *
 * A step: the stage draws a batch from (seed, step) alone, cuts it into the recipe's shards, each
 * shard runs forward and backward on one thread into gradients of its own, which are then added in
 * order, clipped, and stepped. So the bits do not depend on the threads, and a run that is resumed
 * from a checkpoint goes on to the bits of one that was never stopped. A loss or gradient that is
 * not finite ends the run with an error that names the step; checkpoints stay as they were.
 *
 * A checkpoint is written beside the old ones and renamed when it is whole: a run that is killed,
 * or a disk that is full, leaves the last one usable.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_TRAINER_H
#define MR_RANKER_TRAINING_TRAINER_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "ranker/training/recipe.h"

/* What a step reports, for a bar and for the log. */
typedef struct {
    int64_t step, steps;
    double loss;        /* of this step: the weighted sum */
    double smooth_loss; /* running mean */
    double rate;        /* learning rate */
    double gradient_norm;
    double tokens_per_s;
    double valid_loss; /* NaN: not looked at in this step */
} mr_train_progress;

typedef struct {
    const char *out; /* folder; made if it is not there */
    int threads;     /* 0: all */
    bool fresh;      /* ignore checkpoints that are there; by default their newest is resumed */
    int64_t
        stop_step; /* stop after this step with a checkpoint, as if interrupted; 0: run through */
    const volatile sig_atomic_t *stop; /* set by a signal handler: checkpoint and stop; or NULL */
    void (*report)(void *context, const mr_train_progress *progress); /* after each step; or NULL */
    void *report_context;
} mr_train_options;

typedef struct {
    int64_t first_step, last_step; /* computed by this call */
    bool finished;                 /* false: stopped early, resumable */
    double loss, valid_loss;
    double tokens_per_s;
    uint64_t tokens; /* trained on, in all; of the bpe stage: the size of the vocabulary */
    uint64_t
        passed_over; /* rows of the data without what the stage reads: captions without image */
} mr_train_summary;

MR_NODISCARD mr_status mr_train_run(const mr_recipe *recipe, const mr_train_options *opt,
                                    mr_train_summary *out, mr_error *err);

#endif
