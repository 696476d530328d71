import "./styles/base.css";
import "./styles/frame.css";
import "./styles/chat.css";
import "./styles/prose.css";
import { render } from "preact";
import { App } from "./app.tsx";
import { registerWorker } from "./core/pwa.ts";
import { start } from "./core/session.ts";

render(<App />, document.getElementById("app")!);
void start();
registerWorker();
