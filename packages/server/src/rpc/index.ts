/**
 * rpc: HTTP/2, gRPC and HTTP/1 on one port. Serves tables of handlers and knows nothing of etcd.
 *
 * `handlers.ts` is what services are written against, `listener.ts` is the port, `grpc-js-transport.ts` carries calls.
 */
export {
  type CallContext,
  type CallHooks,
  type CallMetadata,
  EncodedMessage,
  type HandlerFor,
  type MethodDescriptor,
  type MethodKind,
  type PeerInfo,
  type RequestOf,
  type ResponseOf,
  type ResponseSink,
  type ServiceDescriptor,
  type ServiceHandlers,
  type ServiceRegistration,
  StreamedMessage,
  type StreamHandler,
  serve,
  type UnaryHandler,
} from "./handlers.ts";
export {
  canReusePort,
  type HttpHandler,
  type ListenOptions,
  listenErrorText,
  OnePortListener,
  type PortServices,
  remoteAddressOf,
  type TlsAcceptor,
} from "./listener.ts";
export { createGrpcJsServer } from "./grpc-js-transport.ts";
export { createNativeServer } from "./http2/transport.ts";
export type { RpcKeepAlive, RpcLimits, RpcServer, RpcServerOptions } from "./server.ts";
export { canceledError, deadlineError, StatusError, statusOf, tooLargeMessage } from "./status.ts";
export { type SelfSignedOptions, selfSignedFiles } from "./self-signed.ts";
export {
  alternativeNames,
  cipherList,
  createTlsAcceptor,
  type TlsAcceptorOptions,
  type TlsListenSettings,
} from "./tls.ts";
export { createTlsDialler, type TlsDialler, type TlsDialOptions, type TlsDialSettings } from "./tls-dial.ts";
