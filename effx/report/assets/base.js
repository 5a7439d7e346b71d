// Elements, numbers and words that every part uses. Text is only ever set as text, never as markup.

const SVG = 'http://www.w3.org/2000/svg';

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (name === 'css') for (const [key, own] of Object.entries(value)) node.style.setProperty(key, own);
    else node.setAttribute(name, value === true ? '' : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
  return node;
}

const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

let unique = 0;
const freshId = (stem) => `${stem}-${++unique}`;

function say(text) {
  document.getElementById('live').textContent = text;
}

// How a unit is shown: factor, name and what to call it in a column.
const UNITS = {
  's': [1e3, 'ms'], 'J/example': [1e3, 'mJ/example'], 'J': [1e3, 'mJ'], 'B': [1 / 1048576, 'MiB'], '': [1, ''], 'count': [1e-6, 'million'], '1/s': [1, 'examples/s'],
};
const shownUnit = (unit) => (UNITS[unit] || [1, unit])[1];
const factorOf = (unit) => (UNITS[unit] || [1, unit])[0];

function digits(value, count = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–';
  if (value === 0) return '0';
  const size = Math.floor(Math.log10(Math.abs(value)));
  if (size >= 5 || size < -4) return value.toExponential(count - 1);
  return value.toFixed(Math.max(0, count - 1 - size));
}

// A figure of an objective, without its unit.
function figure(value, unit) {
  if (value === null || value === undefined) return '–';
  return unit === '' ? value.toFixed(4) : digits(value * factorOf(unit));
}

function interval(low, high, unit) {
  if (low === null || low === undefined || high === null || high === undefined) return '';
  return `${figure(low, unit)} to ${figure(high, unit)}`;
}

const percent = (share, places = 1) =>
  share === null || share === undefined ? '–' : `${(100 * share).toFixed(places)} %`;

const count = (number, word) => `${number.toLocaleString('en')} ${word}${number === 1 ? '' : 's'}`;

function throttled(action) {
  let waiting = null;
  return (...values) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => action(...values), 120);
  };
}

function select(label, options, value, onchange) {
  const own = el('select', { id: freshId('select') },
    options.map(([key, text]) => el('option', { value: key, selected: String(key) === String(value) }, text)));
  own.addEventListener('change', () => onchange(own.value));
  return field(label, own);
}

// The label stands beside its control, not around it: else an option's text would be part of the name.
const field = (label, control) => el('div', { class: 'field' }, el('label', { for: control.id }, label), control);

function checkbox(label, checked, onchange) {
  const own = el('input', { type: 'checkbox', id: freshId('check'), checked });
  own.addEventListener('change', () => onchange(own.checked));
  return el('label', { class: 'check', for: own.id }, own, label);
}

// A section of the page with its heading; the table of contents is made from these.
function section(id, title, ...children) {
  const own = el('section', { 'aria-labelledby': id }, el('h2', { id, tabindex: '-1' }, title), ...children);
  document.getElementById('main').append(own);
  document.getElementById('contents').append(el('a', { href: `#${id}` }, title));
  return own;
}

const soft = (...text) => el('p', { class: 'soft' }, ...text);
