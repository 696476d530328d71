// Installable: a service worker that keeps the app's own files for a start without a network.
import { trustedScript } from "./trusted.ts";

export function registerWorker(): void {
  if (!("serviceWorker" in navigator) || !import.meta.env.PROD || !isSecureContext) return;
  addEventListener("load", () => {
    navigator.serviceWorker.register(trustedScript("./sw.js")).catch(() => undefined); // the app works without
  });
}
