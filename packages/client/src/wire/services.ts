/** How services are described: {@link ServiceInfo} is what the generated `KV`, `Watch`, ... satisfy. */
import type { Codec } from "./runtime.ts";

export type MethodKind = "unary" | "serverStream" | "clientStream" | "bidi";

/** One method of a service. */
export interface MethodInfo<Request = never, Response = never> {
  /** `Range` */
  readonly name: string;
  /** `/etcdserverpb.KV/Range` */
  readonly path: string;
  readonly kind: MethodKind;
  readonly request: MessageCodec<Request>;
  readonly response: MessageCodec<Response>;
  /** Paths of the JSON gateway, POST with the whole message as body; empty when there are none. */
  readonly routes: readonly string[];
}

/** A codec whose message type is open: `never` stands for "any", so that every codec fits. */
export type MessageCodec<T> = [T] extends [never] ? Pick<Codec<never>, "typeName" | "fields"> : Codec<T>;

/** A service with its methods, keyed by the method's name in camelCase. */
export interface ServiceInfo {
  /** `etcdserverpb.KV` */
  readonly typeName: string;
  readonly methods: Readonly<Record<string, MethodInfo>>;
}

export type RequestOf<M> = M extends { readonly request: Codec<infer T> } ? T : never;
export type ResponseOf<M> = M extends { readonly response: Codec<infer T> } ? T : never;
