/* words.c - see words.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "core/words.h"

#include <stdlib.h>

/* Sorted. */
static const char *const stop_words[] = {
    "a",     "all",   "also",  "an",   "and",  "any",      "are",   "as",    "at",      "be",
    "been",  "both",  "but",   "by",   "can",  "contains", "could", "do",    "does",    "each",
    "for",   "from",  "has",   "have", "how",  "if",       "in",    "into",  "is",      "it",
    "its",   "may",   "more",  "not",  "of",   "on",       "or",    "other", "package", "provides",
    "s",     "so",    "some",  "such", "t",    "than",     "that",  "the",   "their",   "them",
    "then",  "there", "these", "they", "this", "to",       "up",    "use",   "used",    "uses",
    "using", "via",   "was",   "we",   "were", "what",     "when",  "where", "which",   "while",
    "who",   "will",  "with",  "you",  "your",
};

static int compare_word(const void *key, const void *entry)
{
    return strcmp(key, *(const char *const *)entry);
}

static bool is_stop_word(const char *word)
{
    return bsearch(word, stop_words, sizeof stop_words / sizeof *stop_words, sizeof *stop_words,
                   compare_word) != NULL;
}

/* Cuts one ending, where at least four characters of the word are left. */
static size_t cut_ending(char *word, size_t len)
{
    static const char *const endings[] = {"ing", "ers", "er", "ed", "es", "s"};
    if (len > 4 && mr_ends_with(word, "ies")) {
        word[len - 3] = 'y';
        return len - 2;
    }
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        const size_t n = strlen(endings[i]);
        if (len >= n + 4 && mr_ends_with(word, endings[i]))
            return len - n;
    }
    return len;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool goes_on(char c, bool number)
{
    return is_digit(c) || (!number && (is_letter(c) || c == '+' || c == '#'));
}

bool mr_words_next(mr_str *rest, char word[MR_WORD_MAX], size_t *len)
{
    size_t i = 0;
    while (i < rest->len) {
        const size_t begin = i;
        const bool number = is_digit(rest->data[i]);
        if (!number && !is_letter(rest->data[i])) {
            i++;
            continue;
        }
        while (i < rest->len && goes_on(rest->data[i], number))
            i++;
        const size_t n = i - begin < MR_WORD_MAX - 1 ? i - begin : MR_WORD_MAX - 1;
        for (size_t k = 0; k < n; k++) {
            const char c = rest->data[begin + k];
            word[k] = (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
        }
        word[n] = '\0';
        if (n < 2 || is_stop_word(word))
            continue;
        *len = cut_ending(word, n);
        word[*len] = '\0';
        *rest = (mr_str){rest->data + i, rest->len - i};
        return true;
    }
    *rest = (mr_str){NULL, 0};
    return false;
}
