/* words.h - the words of a text, as lexical search counts them: for the baselines, and for the demo
 * catalogue, which picks its candidates by them.
 *
 * A word is a run of ASCII letters, digits, '+' and '#' that begins with a letter, or a run of
 * digits: lower case, without the commonest English words and without words of one character, the
 * commonest English endings cut off ("games" and "gaming" stay apart from each other, "gamers" and
 * "gamer" do not). Bytes outside ASCII separate words. The study behind docs/evaluation.md counted
 * words in this way, so that figures compare.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_CORE_WORDS_H
#define MR_CORE_WORDS_H

#include <stdbool.h>

#include "core/bytes.h"

#define MR_WORD_MAX 64 /* bytes of a word and its terminator; longer ones are cut */

/* Takes the next word off the front of *rest; false, and *rest empty, at the end. */
bool mr_words_next(mr_str *rest, char word[MR_WORD_MAX], size_t *len);

#endif
