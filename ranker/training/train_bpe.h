/* train_bpe.h - the bpe stage: texts of a recipe to tokenizer.json. mr_train_run calls it; it takes
 * no steps and keeps no checkpoints, because it is done in seconds.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_TRAIN_BPE_H
#define MR_RANKER_TRAINING_TRAIN_BPE_H

#include "core/error.h"
#include "ranker/training/trainer.h"

/* Ends documents, and is the one special token of a recipe that names none. */
#define MR_END_OF_TEXT "<|endoftext|>"

/* Writes tokenizer.json and tokenizer_config.json into opt->out. summary->tokens is the size of the
 * vocabulary. CANCELLED when opt->stop is set meanwhile; nothing is written then. */
MR_NODISCARD mr_status mr_train_bpe(const mr_recipe *recipe, const mr_train_options *opt,
                                    mr_train_summary *summary, mr_error *err);

#endif
