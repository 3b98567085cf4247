/* rpc_mailbox.c - how other threads reach a loop: calls with answers, new sockets, commands.
 *
 * A call is in the mailbox at most once, however often it is written to. The eventfd is written
 * once per batch, and not at all by the loop's own thread, which looks into the mailbox before it
 * sleeps.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "ranker/service/rpc_private.h"

mr_rpc_mailbox *mr_rpc_mailbox_new(mr_rpc_shared *shared)
{
    mr_rpc_mailbox *mailbox = calloc(1, sizeof *mailbox);
    if (!mailbox)
        return NULL;
    mailbox->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (mailbox->wake_fd < 0 || pthread_mutex_init(&mailbox->lock, NULL) != 0) {
        if (mailbox->wake_fd >= 0)
            close(mailbox->wake_fd);
        free(mailbox);
        return NULL;
    }
    atomic_init(&mailbox->refs, 1);
    mailbox->shared = shared;
    mr_rpc_shared_ref(shared);
    return mailbox;
}

void mr_rpc_mailbox_ref(mr_rpc_mailbox *mailbox)
{
    atomic_fetch_add_explicit(&mailbox->refs, 1, memory_order_relaxed);
}

void mr_rpc_mailbox_unref(mr_rpc_mailbox *mailbox)
{
    if (!mailbox || atomic_fetch_sub_explicit(&mailbox->refs, 1, memory_order_acq_rel) != 1)
        return;
    pthread_mutex_destroy(&mailbox->lock);
    mr_rpc_shared_unref(mailbox->shared);
    free(mailbox);
}

/* Under the lock. A full eventfd is awake already. */
static void wake(mr_rpc_mailbox *mailbox)
{
    const uint64_t one = 1;
    if (mailbox->woken || mr_rpc_loop_is_current(mailbox))
        return;
    mailbox->woken = true;
    while (write(mailbox->wake_fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

void mr_rpc_mailbox_post(mr_rpc_mailbox *mailbox, mr_rpc_call *call)
{
    pthread_mutex_lock(&mailbox->lock);
    if (mailbox->wake_fd >= 0 && !call->posted) {
        call->posted = true;
        call->next = NULL;
        atomic_fetch_add_explicit(&call->refs, 1, memory_order_relaxed);
        if (mailbox->last)
            mailbox->last->next = call;
        else
            mailbox->first = call;
        mailbox->last = call;
        wake(mailbox);
    }
    pthread_mutex_unlock(&mailbox->lock);
}

void mr_rpc_mailbox_command(mr_rpc_mailbox *mailbox, unsigned command)
{
    pthread_mutex_lock(&mailbox->lock);
    if (mailbox->wake_fd >= 0) {
        mailbox->commands |= command;
        wake(mailbox);
    }
    pthread_mutex_unlock(&mailbox->lock);
}

static void discard(mr_rpc_mailbox *mailbox, mr_rpc_socket *socket)
{
    close(socket->fd);
    free(socket);
    mr_rpc_count(mailbox->shared, MR_RPC_N_CONNECTIONS, -1);
}

void mr_rpc_mailbox_hand(mr_rpc_mailbox *mailbox, mr_rpc_socket *socket)
{
    pthread_mutex_lock(&mailbox->lock);
    const bool open = mailbox->wake_fd >= 0;
    if (open) {
        socket->next = mailbox->sockets;
        mailbox->sockets = socket;
        wake(mailbox);
    }
    pthread_mutex_unlock(&mailbox->lock);
    if (!open)
        discard(mailbox, socket);
}

bool mr_rpc_mailbox_take(mr_rpc_mailbox *mailbox, mr_rpc_mail *out)
{
    uint64_t ignored;
    pthread_mutex_lock(&mailbox->lock);
    if (mailbox->woken) {
        while (read(mailbox->wake_fd, &ignored, sizeof ignored) < 0 && errno == EINTR)
            ;
        mailbox->woken = false;
    }
    *out = (mr_rpc_mail){mailbox->commands, mailbox->first, mailbox->sockets};
    mailbox->commands = 0;
    mailbox->first = mailbox->last = NULL;
    mailbox->sockets = NULL;
    pthread_mutex_unlock(&mailbox->lock);
    return out->commands || out->calls || out->sockets;
}

mr_rpc_call *mr_rpc_mailbox_next(mr_rpc_mailbox *mailbox, mr_rpc_mail *mail)
{
    mr_rpc_call *call = mail->calls;
    if (!call)
        return NULL;
    pthread_mutex_lock(&mailbox->lock);
    mail->calls = call->next;
    call->next = NULL;
    call->posted = false; /* what is written from here on posts again */
    pthread_mutex_unlock(&mailbox->lock);
    return call;
}

void mr_rpc_mailbox_wake(mr_rpc_mailbox *mailbox)
{
    const uint64_t one = 1;
    pthread_mutex_lock(&mailbox->lock);
    if (!mailbox->woken && mailbox->wake_fd >= 0) {
        mailbox->woken = true;
        while (write(mailbox->wake_fd, &one, sizeof one) < 0 && errno == EINTR)
            ;
    }
    pthread_mutex_unlock(&mailbox->lock);
}

void mr_rpc_mailbox_close(mr_rpc_mailbox *mailbox)
{
    pthread_mutex_lock(&mailbox->lock);
    if (mailbox->wake_fd >= 0)
        close(mailbox->wake_fd);
    mailbox->wake_fd = -1; /* nothing comes in from here on */
    mailbox->woken = false;
    pthread_mutex_unlock(&mailbox->lock);
    mr_rpc_mail mail;
    (void)mr_rpc_mailbox_take(mailbox, &mail);
    for (mr_rpc_call *call; (call = mr_rpc_mailbox_next(mailbox, &mail)) != NULL;)
        mr_rpc_call_drop(call);
    while (mail.sockets) {
        mr_rpc_socket *socket = mail.sockets;
        mail.sockets = socket->next;
        discard(mailbox, socket);
    }
}
