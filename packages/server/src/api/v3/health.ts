/** grpc.health.v1: the server as a whole, under the empty name. */
import { Code, Health, ServingStatus } from "@etcd-ts/client/wire";
import { deferred } from "../../lib/wait.ts";
import { type ServiceRegistration, StatusError, serve } from "../../rpc/index.ts";
import type { ApiDeps } from "./context.ts";

/** What health checks are told, and who wants to hear of changes. */
export class ServingState {
  #isServing = true;
  readonly #listeners = new Set<() => void>();

  get status(): number {
    return this.#isServing ? ServingStatus.Serving : ServingStatus.NotServing;
  }

  set(isServing: boolean): void {
    if (this.#isServing === isServing) return;
    this.#isServing = isServing;
    for (const fn of this.#listeners) fn();
  }

  onChange(fn: () => void): () => void {
    this.#listeners.add(fn);
    return () => this.#listeners.delete(fn);
  }
}

export function healthService({ logger }: ApiDeps, state: ServingState): ServiceRegistration {
  logger.info("grpc service status changed", { service: "", status: "SERVING" });
  return serve(Health, {
    check(request) {
      if (request.service !== "") throw new StatusError(Code.NotFound, "unknown service");
      return { status: state.status };
    },
    async watch(requests, out, call) {
      for await (const request of requests) {
        let changed = deferred();
        const forget = state.onChange(() => changed.resolve());
        const over = () => changed.resolve();
        call.signal.addEventListener("abort", over, { once: true });
        try {
          while (!call.signal.aborted) {
            changed = deferred();
            const status = request.service === "" ? state.status : ServingStatus.ServiceUnknown;
            if (!out.write({ status })) await out.drained();
            await changed.promise;
          }
          throw call.signal.reason;
        } finally {
          forget();
        }
      }
    },
  });
}
